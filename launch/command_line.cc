#include "launch/command_line.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <map>
#include <set>
#include <type_traits>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "data/program/closest_name.h"
#include "data/program/exit_code.h"

namespace emo {
namespace {

void add_limits(double least, double most, CLI::Option* added) {
  const std::string which = std::isinf(most) ? absl::StrFormat("at least %.12g", least)
                                             : absl::StrFormat("%.12g to %.12g", least, most);
  added->check([=](const std::string& text) -> std::string {
    double value = 0;
    // Negated, so that NaN is refused.
    if (absl::SimpleAtod(text, &value) && value >= least && value <= most) return "";
    return text + " is not a number of " + which;
  });
  added->type_name(added->get_type_name() + " " + which);
}

void add_option(const Option& option, CLI::App* app) {
  CLI::Option* added = std::visit(
      [&](auto* target) -> CLI::Option* {
        if constexpr (std::is_same_v<decltype(target), bool*>) {
          return app->add_flag(option.name, *target, option.help);
        } else {
          return app->add_option(option.name, *target, option.help);
        }
      },
      option.target);
  added->required(option.is_required);
  if (option.has_commas) added->delimiter(',');
  if (option.one_at_a_time) added->allow_extra_args(false);
  if (option.fewest > 0) added->expected(static_cast<int>(option.fewest), 1 << 20);
  if (!option.choices.empty()) added->check(CLI::IsMember(option.choices));
  if (option.limits) add_limits(option.limits->first, option.limits->second, added);
  for (const auto& wrong : option.checks) added->check(wrong);
  if (option.shows_default) added->capture_default_str();
}

// Fills `app` and answers the parser of each command.
std::vector<const CLI::App*> add_commands(const CommandLine& line, CLI::App* app) {
  std::map<std::string, CLI::App*> groups;
  const auto group = [&](const std::string& name) {
    for (const CommandGroup& g : line.groups) {
      if (g.name == name && groups[name] == nullptr) {
        groups[name] = app->add_subcommand(name, g.summary)->require_subcommand(1);
      }
    }
    return groups.at(name);
  };
  std::vector<const CLI::App*> parsers;
  for (const Command& command : line.commands) {
    const std::vector<std::string> words = absl::StrSplit(command.name, ' ');
    CLI::App* parent = words.size() > 1 ? group(words[0]) : app;
    CLI::App* parser = parent->add_subcommand(words.back(), command.summary);
    parser->footer(command.footer);
    for (const Option& option : command.options.all()) add_option(option, parser);
    parsers.push_back(parser);
  }
  return parsers;
}

// The words that may stand after `path` ("" or "experts ").
std::vector<std::string> words_after(const CommandLine& line, const std::string& path) {
  std::set<std::string> words;
  for (const Command& command : line.commands) {
    if (!absl::StartsWith(command.name, path)) continue;
    const std::string rest = command.name.substr(path.size());
    words.insert(rest.substr(0, rest.find(' ')));
  }
  return {words.begin(), words.end()};
}

const Command* find_command(const CommandLine& line, const std::string& name) {
  for (const Command& command : line.commands) {
    if (command.name == name) return &command;
  }
  return nullptr;
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::vector<std::string> option_names(const Command* command) {
  std::vector<std::string> names = {"--help"};
  if (command == nullptr) return {"--help", "--version"};
  for (const Option& option : command->options.all()) {
    if (absl::StartsWith(option.name, "--")) names.push_back(option.name);
  }
  return names;
}

}  // namespace

std::string explain_usage(const CommandLine& line, const std::vector<std::string>& arguments) {
  std::string path;  // of what was named so far, "" or with a blank behind it
  const Command* command = nullptr;
  for (const std::string& argument : arguments) {
    if (absl::StartsWith(argument, "--")) {
      const std::string name = argument.substr(0, argument.find('='));
      const std::vector<std::string> known = option_names(command);
      if (!contains(known, name)) return "no option '" + name + "'" + did_you_mean(name, known);
    } else if (command == nullptr) {
      const std::vector<std::string> known = words_after(line, path);
      if (!contains(known, argument)) {
        return "no command '" + path + argument + "'" + did_you_mean(argument, known);
      }
      command = find_command(line, path + argument);
      path += argument + " ";
    }
  }
  return "";
}

std::variant<const Command*, int> parse_arguments(const CommandLine& line, int argc,
                                                  const char* const* argv, bool speaks) {
  CLI::App app{line.about};
  app.set_version_flag("--version", line.version);
  app.require_subcommand(1);
  app.footer(line.footer);
  const std::vector<const CLI::App*> parsers = add_commands(line, &app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return speaks ? app.exit(error) : 0;  // --help, --version
    if (!speaks) return kExitUsage;
    const std::string why = explain_usage(line, {argv + 1, argv + argc});
    std::fprintf(stderr, "emo: %s\nRun 'emo --help', or 'emo COMMAND --help' for an example.\n",
                 why.empty() ? error.what() : why.c_str());
    return kExitUsage;
  }
  for (size_t i = 0; i < parsers.size(); ++i) {
    if (parsers[i]->parsed()) return &line.commands[i];
  }
  return kExitUsage;
}

int report_error(const absl::Status& status, bool speaks) {
  if (speaks) std::fprintf(stderr, "emo: %s\n", std::string(status.message()).c_str());
  return exit_code(status);
}

}  // namespace emo

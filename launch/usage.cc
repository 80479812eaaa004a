#include "launch/usage.h"

#include <cstdio>

#include "data/closest_name.h"
#include "data/exit_code.h"

namespace emo {
namespace {

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  return names;
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  for (const std::string& candidate : names) {
    if (candidate == name) return true;
  }
  return false;
}

}  // namespace

std::string explain_usage(const CLI::App& app, const std::vector<std::string>& arguments) {
  const CLI::App* current = &app;
  for (const std::string& argument : arguments) {
    if (argument.rfind("--", 0) == 0) {
      const std::string name = argument.substr(0, argument.find('='));
      const std::vector<std::string> known = option_names(*current);
      if (!contains(known, name)) return "no option '" + name + "'" + did_you_mean(name, known);
      continue;
    }
    const std::vector<std::string> commands = command_names(*current);
    if (commands.empty()) continue;  // a value or a positional argument
    if (!contains(commands, argument)) {
      return "no command '" + argument + "'" + did_you_mean(argument, commands);
    }
    current = current->get_subcommand(argument);
  }
  return "";
}

int explain_parse_error(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv,
                        bool speaks) {
  if (error.get_exit_code() == 0) return speaks ? app.exit(error) : 0;  // --help, --version
  if (!speaks) return kExitUsage;
  const std::string why = explain_usage(app, {argv + 1, argv + argc});
  std::fprintf(stderr, "emo: %s\nRun 'emo --help', or 'emo COMMAND --help' for an example.\n",
               why.empty() ? error.what() : why.c_str());
  return kExitUsage;
}

int report_error(const absl::Status& status, bool speaks) {
  if (speaks) std::fprintf(stderr, "emo: %s\n", std::string(status.message()).c_str());
  return exit_code(status);
}

}  // namespace emo

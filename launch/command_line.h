// From arguments to a subcommand, and from what is wrong with them to an explanation.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "data/program/command.h"

namespace emo {

// What commands named "NAME ..." have in common.
struct CommandGroup {
  std::string name, summary;
};

struct CommandLine {
  std::string about, version, footer;
  std::vector<CommandGroup> groups;
  std::vector<Command> commands;
};

// Reads the arguments into the targets of a command's options. Answers the command, or the exit
// code where there is nothing to run: 0 after --help or --version, 64 after saying what is wrong on
// standard error. Prints where `speaks` is set: on one rank of many.
std::variant<const Command*, int> parse_arguments(const CommandLine& line, int argc,
                                                  const char* const* argv, bool speaks);

// What stands wrong in the arguments, as far as it can be told, with the name that was meant:
// "no command 'trian'; did you mean 'train'?", else "".
std::string explain_usage(const CommandLine& line, const std::vector<std::string>& arguments);

// The exit code of an error, which is printed where `speaks` is set.
int report_error(const absl::Status& status, bool speaks);

}  // namespace emo

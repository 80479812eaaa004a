// What a folder hands to the command line: one subcommand.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "data/program/options.h"

namespace emo {

struct Command {
  std::string name;     // "train", or behind the name of its group: "experts rank"
  std::string summary;  // one line
  OptionList options;
  std::string footer;  // of --help: an example
  // Called after a successful parse; answers the process's exit code (0, or 1 where a comparison
  // differs) or the error that exit_code.h turns into one.
  std::function<absl::StatusOr<int>()> run;
};

}  // namespace emo

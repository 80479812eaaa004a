// What a folder hands to the command line: one subcommand.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "absl/status/statusor.h"

namespace emo {

// `app` is owned by its parent; `run` is called after a successful parse and answers the process's
// exit code (0, or 1 where a comparison differs) or the error that exit_code.h turns into one.
struct Command {
  CLI::App* app;
  std::function<absl::StatusOr<int>()> run;
};

}  // namespace emo

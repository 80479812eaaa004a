// The subcommands of the program.
#pragma once

#include <CLI/CLI.hpp>
#include <vector>

#include "data/command.h"

namespace emo {

// All of them, in the order in which --help shows them.
std::vector<Command> add_commands(CLI::App& app);

}  // namespace emo

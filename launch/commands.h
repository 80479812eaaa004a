// The subcommands of the program.
#pragma once

#include <vector>

#include "launch/command_line.h"

namespace emo {

// All of them, in the order in which --help shows them.
std::vector<Command> all_commands();
std::vector<CommandGroup> command_groups();

}  // namespace emo

// The subcommands `emo export` and `emo import`.
#pragma once

#include "data/command.h"

namespace emo {

Command export_command(CLI::App& parent);
Command import_command(CLI::App& parent);

}  // namespace emo

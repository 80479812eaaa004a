// `emo experts rank` and `emo experts retention`.
#pragma once

#include "data/command.h"

namespace emo {

Command experts_rank_command(CLI::App& experts);
Command experts_retention_command(CLI::App& experts);

}  // namespace emo

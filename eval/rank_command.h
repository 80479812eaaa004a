// `emo experts rank`: which experts to keep.
#pragma once

#include "data/command.h"

namespace emo {

Command experts_rank_command(CLI::App& experts);

}  // namespace emo

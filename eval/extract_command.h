// `emo experts extract` and `emo experts merge`.
#pragma once

#include "data/command.h"

namespace emo {

Command experts_extract_command(CLI::App& experts);
Command experts_merge_command(CLI::App& experts);

}  // namespace emo

// `emo experts compare`.
#pragma once

#include "data/command.h"

namespace emo {

Command experts_compare_command(CLI::App& experts);

}  // namespace emo

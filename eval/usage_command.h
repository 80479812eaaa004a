// `emo experts usage`.
#pragma once

#include "data/command.h"

namespace emo {

Command experts_usage_command(CLI::App& experts);

}  // namespace emo

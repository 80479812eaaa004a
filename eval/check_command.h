// `emo check`, see golden_check.h.
#pragma once

#include "data/command.h"

namespace emo {

Command check_command(CLI::App& parent);

}  // namespace emo

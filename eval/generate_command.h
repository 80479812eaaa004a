// `emo generate`.
#pragma once

#include "data/command.h"

namespace emo {

Command generate_command(CLI::App& parent);

}  // namespace emo

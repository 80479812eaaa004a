// `emo experts place`.
#pragma once

#include "data/command.h"

namespace emo {

Command experts_place_command(CLI::App& experts);

}  // namespace emo

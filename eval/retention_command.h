// `emo experts retention`.
#pragma once

#include "data/command.h"

namespace emo {

Command experts_retention_command(CLI::App& experts);

}  // namespace emo

// emo sweep: ablations, from a question to an answer with error bars (docs/sweeps.md).
#pragma once

#include "data/program/command.h"

namespace emo {

Command sweep_command();

}  // namespace emo

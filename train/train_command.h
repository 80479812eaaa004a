// `emo train`, see trainer.h.
#pragma once

#include "data/command.h"

namespace emo {

Command train_command(CLI::App& parent);

}  // namespace emo

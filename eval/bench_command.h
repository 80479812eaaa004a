// `emo bench step`, see bench_step.h.
#pragma once

#include "data/command.h"

namespace emo {

Command bench_step_command(CLI::App& bench);

}  // namespace emo

// `emo bench step` and `emo bench exchange`, see bench_step.h and bench_exchange.h.
#pragma once

#include "data/command.h"

namespace emo {

Command bench_step_command(CLI::App& bench);
Command bench_exchange_command(CLI::App& bench);

}  // namespace emo

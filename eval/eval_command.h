// `emo eval`, see perplexity.h.
#pragma once

#include "data/command.h"

namespace emo {

Command eval_command(CLI::App& parent);

}  // namespace emo

// The subcommand `emo logits`: what the model answers to given tokens, for programs to compare
// with.
#pragma once

#include "data/command.h"

namespace emo {

Command logits_command(CLI::App& parent);

}  // namespace emo

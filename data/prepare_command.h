// `emo prepare` and `emo data show`.
#pragma once

#include "data/command.h"

namespace emo {

Command prepare_command(CLI::App& parent);
Command data_show_command(CLI::App& data);

}  // namespace emo

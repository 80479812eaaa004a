// The subcommands of data/.
#pragma once

#include "data/program/command.h"

namespace emo {

Command prepare_command();
Command data_show_command();

}  // namespace emo

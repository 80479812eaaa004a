// The subcommands of data/.
#pragma once

#include "data/program/command.h"

namespace emo {

Command prepare_command();
Command data_show_command();
Command data_check_command();
Command data_order_command();
Command data_index_command();

}  // namespace emo

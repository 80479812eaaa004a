// `emo prepare` and `emo data show`.
#pragma once

#include "data/program/command.h"

namespace emo {

Command prepare_command();
Command data_show_command();

}  // namespace emo

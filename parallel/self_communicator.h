// The group of one: every collective is the identity. What a single process trains with.
#pragma once

#include <memory>

#include "parallel/communicator.h"

namespace emo {

std::unique_ptr<Communicator> self_communicator();

}  // namespace emo

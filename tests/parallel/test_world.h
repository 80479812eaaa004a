// The ranks that a test program runs on.
#pragma once

#include <functional>

#include "parallel/communicator.h"

namespace emo {

// The world of this test program; set by its main.
Communicator& test_world();
void set_test_world(Communicator* world);

// Collective. True on every rank where `local` is true on every rank: assert on the answer, so that
// no rank leaves a test while others wait in it.
bool on_all_ranks(bool local);

}  // namespace emo

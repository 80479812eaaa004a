// The ranks that a test program runs on.
#pragma once

#include <c10/core/Device.h>

#include <memory>

#include "parallel/communicator.h"

namespace emo {

// The world of this test program; set by its main.
Communicator& test_world();
void set_test_world(Communicator* world);

// Each test program says what communicator it tests, made of the job's `world`, and where the
// tensors of its collectives are.
std::unique_ptr<Communicator> communicator_under_test(std::unique_ptr<Communicator> world);
at::Device test_device();

// Collective. True on every rank where `local` is true on every rank: assert on the answer, so that
// no rank leaves a test while others wait in it.
bool on_all_ranks(bool local);

}  // namespace emo

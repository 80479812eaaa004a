#include "tests/parallel/test_world.h"

#include <ATen/ops/from_blob.h>

namespace emo {
namespace {

Communicator* current = nullptr;

}  // namespace

Communicator& test_world() { return *current; }
void set_test_world(Communicator* world) { current = world; }

bool on_all_ranks(bool local) {
  int64_t failed = local ? 0 : 1;
  current->all_reduce(at::from_blob(&failed, {1}, at::kLong), ReduceOp::kMax);
  return failed == 0;
}

}  // namespace emo

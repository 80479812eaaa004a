#include "tests/model/clear_routing.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_format.h"
#include "parallel/self_communicator.h"

namespace emo {

RoutingGap gap_of_pass(const Model& model, const Slice& slice, const PassSettings& settings) {
  const auto alone = self_communicator();
  PassOptions own;
  own.ep = own.world = alone.get();  // noise included where the contract has it
  own.settings.pool = settings.pool;
  own.settings.seed = settings.seed;
  own.settings.subsets = settings.subsets;
  Activations activations;
  PassBuffers buffers;
  forward(model, slice, own, &activations, &buffers);
  return routing_gap(activations.blocks);
}

double allowed_difference(double bound, double largest, double moved) {
  // A test's own weights are conditioned well enough for its own bound, or nearly: what computes
  // noisily is not to excuse itself.
  const double most = (other_weights() == 0 ? 4 : 100) * bound * largest;
  return std::max(bound * largest, std::min(8 * moved, most));
}

std::string too_sensitive(const std::string& name, double largest, double moved) {
  if (moved <= 1e-3 * largest) return "";  // NaN is told
  return absl::StrFormat("rounding moves %s by %.1e of its largest entry; ", name, moved / largest);
}

void pass_over(uint64_t seed, const std::string& reason) {
  const auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
  if (listeners.default_result_printer() == nullptr) return;  // released by tests/parallel/main.cc
  std::printf("[PASSED OVER] weights of seed %d: %s\n", static_cast<int>(seed), reason.c_str());
}

uint64_t other_weights() {
  const char* moved = std::getenv("EMO_TEST_SEED");
  return moved != nullptr ? std::strtoull(moved, nullptr, 10) : 0;
}

std::string too_close(double gap) {
  return gap >= kTieGap ? "" : absl::StrFormat("a tie within rounding, a gap of %.1e", gap);
}

}  // namespace emo

// For tests that compare two ways of computing the same: weights with which no discrete choice of
// the router is a tie within rounding, so that both ways must make the same ones on every CPU.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>

#include "model/routing_gap.h"
#include "model/transformer.h"

namespace emo {

// The gap of a forward pass in one process and in fp32. Of `options`, the seed, the pools and the
// subsets count.
RoutingGap gap_of_pass(const Model& model, const RopeTable& rope, const MicroBatch& batch,
                       const PassOptions& options);

// Calls gap_with(seed), which runs the reference, for `first` and the seeds after it, until the gap
// that it answers is at least `bound`; answers that seed. Says which seeds it passed over, and
// fails the test where it finds none.
template <typename GapWith>
uint64_t seed_with_clear_routing(uint64_t first, const GapWith& gap_with, double bound = kTieGap) {
  constexpr uint64_t kSeeds = 20;
  for (uint64_t seed = first; seed < first + kSeeds; ++seed) {
    const double gap = gap_with(seed);
    if (gap >= bound) return seed;
    std::printf("[   TIE    ] weights of seed %d have a gap of %.1e: the next\n",
                static_cast<int>(seed), gap);
  }
  ADD_FAILURE() << "no clear routing with seeds " << first << " to " << first + kSeeds - 1;
  return first;
}

}  // namespace emo

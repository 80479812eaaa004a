// For tests that compare two ways of computing the same: weights with which no discrete choice of
// the router is a tie within rounding, so that both ways must make the same ones on every CPU.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "model/routing_gap.h"
#include "model/transformer.h"

namespace emo {

// The gap of a forward pass in one process on the host, whose model it is, and in fp32. Of
// `settings`, the seed, the pools and the subsets count.
RoutingGap gap_of_pass(const Model& model, const Slice& slice, const PassSettings& settings);

// "" where a reference run with this gap has no ties, else why it is no measure for others.
std::string too_close(double gap);

// How much rounding moves what sums of tens of products give, of itself: four units in the last
// place. fill_random takes it to find out how sensitive a test's results are to it.
constexpr float kRounding = 5e-7f;

// How far two ways of computing an fp32 tensor may be apart: `bound` of its largest entry, or 8
// times what it moves by when the weights are moved by kRounding.
double allowed_difference(double bound, double largest, double moved);

// "" where rounding moves a tensor by at most 1e-3 of its largest entry, else what to say of it: a
// choice that falls the other way, or a wrong term, moves it further.
std::string too_sensitive(const std::string& name, double largest, double moved);

// EMO_TEST_SEED, 0 where it is not set: other weights than the test's own
// (tests/parallel/moved_rounding.sh).
uint64_t other_weights();

// The bound of a gradient in fp32 for those weights: the test's own for its own. Others are
// conditioned otherwise, up to 4.5 times the bound was seen of 60; a choice that falls the other
// way exceeds it a hundred times.
inline double bound_of_weights(double bound) { return other_weights() == 0 ? bound : 10 * bound; }

// Says so, on the rank that prints results.
void pass_over(uint64_t seed, const std::string& reason);

// Calls why_not(seed), which runs the reference, for `first` and the seeds after it, until it
// answers ""; answers that seed. Says why it passed seeds over, and fails the test where it finds
// none.
template <typename WhyNot>
uint64_t seed_with_clear_routing(uint64_t first, const WhyNot& why_not) {
  constexpr uint64_t kSeeds = 20;
  first += 1000 * other_weights();
  for (uint64_t seed = first; seed < first + kSeeds; ++seed) {
    const std::string reason = why_not(seed);
    if (reason.empty()) return seed;
    pass_over(seed, reason);
  }
  ADD_FAILURE() << "no clear routing with seeds " << first << " to " << first + kSeeds - 1;
  return first;
}

}  // namespace emo

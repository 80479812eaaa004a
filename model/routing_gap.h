// How clear the router's discrete choices were. What computes the same in another order (another
// layout, device or CPU) differs by rounding, and a choice between scores closer than that may fall
// the other way; a comparison of two ways of computing needs to know whether there was one.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "model/block.h"
#include "model/inference.h"
#include "model/router.h"

namespace emo {

// Choices at a smaller relative distance are ties within rounding (design.md, Losses).
constexpr double kTieGap = 1e-5;

// The smallest relative distances between what was taken and what was left out; infinite where
// there was no choice.
struct RoutingGap {
  static constexpr double kNone = std::numeric_limits<double>::infinity();
  double pools = kNone;  // of document scores: the last of the pool, and the next
  double experts =
      kNone;             // of a token's scores: the K-th of those that it may choose, and the next
  double order = kNone;  // of a token's scores: any two that follow one another among its K
  double choice() const { return pools < experts ? pools : experts; }
  void take(const RoutingGap& other);  // the smaller of each
};

// Of one layer's routing to `pools` u8 [N, E], computed in fp64 from `input.logits`; both on the
// host. Of input.spans ends and N are read. Pools that were given (ExpertSubset::pools) are no
// choice.
RoutingGap routing_gap(const RouterInput& input, const at::Tensor& pools);

// Of a MoE layer that an inference shows, of a pass with these options over `slice`.
RoutingGap routing_gap(const Inference& inference, const InferenceOptions& options,
                       const Slice& slice, const BlockView& block);

// Of all MoE layers of a forward pass on the host, from what it kept. REQUIRES: Recompute::kNone.
RoutingGap routing_gap(const std::vector<BlockActivations>& blocks);

}  // namespace emo

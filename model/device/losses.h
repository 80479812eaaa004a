// The sums and counts of a step (model/losses.h), which stay on the device until the step's end.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "model/device/router.h"
#include "model/losses.h"
#include "parallel/communicator.h"

namespace emo::device {

// A LossSums as one tensor f64, its numbers in the order of its fields: 3 of the head, and 7 + E of
// each MoE layer.
class StepSums {
 public:
  // `experts`, here and below: at most so many in a layer.
  StepSums(int64_t moe_layers, int64_t experts, at::Device device);
  const at::Tensor& all() const { return all_; }
  at::Tensor head() const { return all_.slice(0, 0, 3); }
  at::Tensor layer(int64_t layer) const;        // [7 + E], of a layer with fewer the first ones
  LossSums read(const at::Tensor& host) const;  // host f64: a copy of all()

 private:
  int64_t layers_, experts_;
  at::Tensor all_;
};

// BalanceCounts of model/losses.h: one all-reduce a micro-batch for all layers and slices, needed
// first in the backward pass.
class BalanceCounts {
 public:
  BalanceCounts(int64_t moe_layers, int64_t experts, BalanceScope scope, at::Device device);

  void start_step();  // forgets the micro-batches of the last step

  // Collective over `world`, unless the scope is kRank. `routings`: those of the micro-batch's
  // slices one after another, each in order of layers; `tokens` of all of them that the losses
  // are of.
  void start(Communicator& world, const std::vector<const Routing*>& routings, int64_t tokens);

  // f32 [E]: the derivative of the unweighted balance loss by each score of a layer of E experts.
  at::Tensor score_gradient(int64_t layer, int64_t experts, int64_t top_k, double divisor);

 private:
  int64_t layers_, experts_;
  BalanceScope scope_;
  at::Tensor arriving_, total_;  // i64 [layers, E + 1] counts, and tokens
  std::unique_ptr<Pending> pending_;
};

}  // namespace emo::device

// The losses of a training step, their divisors and their sums (design.md, "Losses and their
// divisors"). Every loss is a sum over this rank's tokens divided by a count over all ranks, so
// that nothing depends on how rows fall on ranks; gradients are summed over ranks, never averaged.
//
//   language model   sum_t (cross-entropy_t + lm_z_weight * logsumexp_t^2) / N
//   balance, a layer (E / K) sum_e (C_e / T_c) (sum_t s_te / N), weight balance_weight / MoE layers
//   router z         sum_t (router logsumexp_t)^2 / N,           weight z_weight / MoE layers
// N: labels of the whole step, see divisor_share() in train/step/batch_tensors.h. C_e, T_c: tokens
// that chose e, and tokens, counted over the contract's balance_scope. The router's two losses are
// of the tokens t that its losses_over says. With the scope of documents the balance loss of a
// layer is the mean of those of documents, each inside its pool and over its own n_d such tokens:
//   balance          (1 / D) sum_d (P_d / K) sum_e (C_de / n_d) (sum_{t in d} s_te / n_d)
// P_d: experts of the pool, E without pools; D: documents of the whole step, those without such
// tokens, which have no loss, included.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "model/config.h"
#include "model/router.h"
#include "parallel/communicator.h"

namespace emo {

// Sums over tokens of one MoE layer.
struct RouterSums {
  double balance = 0;           // the unweighted balance loss (N or D already divided out)
  double z_squares = 0;         // not yet divided by N
  double token_entropy = 0;     // over `tokens`
  double tokens = 0;            //
  double document_entropy = 0;  // over `documents`
  double pool_size = 0;         // over `documents`
  double documents = 0;         // with pools
  std::vector<double> counts;   // [E] tokens that the losses are of and that chose e
};

struct LossSums {
  double cross_entropy = 0;        // over labelled tokens
  double z_squares = 0;            //
  double labels = 0;               //
  std::vector<RouterSums> layers;  // [MoE layers]
};

// Divisors of the losses and weight of the language model's; the router's weights are the
// contract's.
struct LossOptions {
  double divisor = 1;         // N
  double lm_z_weight = 1e-5;  //
  double documents = 1;       // D
};

// Weights of a layer's losses in the whole loss: of the balance loss, whose divisor is in it
// already, and of the sum of squares of the z loss.
struct RouterLossWeights {
  float balance, z;
};
RouterLossWeights router_loss_weights(const ModelConfig& config, const RoutingContract& contract,
                                      double divisor);

// A LossSums while a step adds it up, where the back end computes: one tensor f64, its numbers in
// the order of LossSums' fields, 3 of the head and 7 + E of each MoE layer.
class StepSums {
 public:
  // `experts`, here and below: at most so many in a layer.
  StepSums(int64_t moe_layers, int64_t experts, at::Device device = at::kCPU);  // zeros
  const at::Tensor& all() const { return all_; }
  at::Tensor head() const { return all_.slice(0, 0, 3); }
  at::Tensor layer(int64_t layer) const;  // [7 + E], of a layer with fewer the first ones
  // Of a step's sums, whole, in this order: f64 [E] tokens that chose each expert of a layer.
  at::Tensor counts(const at::Tensor& all, int64_t layer, int64_t experts) const;
  LossSums read(const at::Tensor& copy) const;  // of all(), on any device

 private:
  int64_t layers_, experts_;
  at::Tensor all_;
};

// Counts of expert choices for the balance loss: started when a micro-batch's forward pass is done,
// needed first in its backward pass. One all-reduce a micro-batch for all layers and slices.
class BalanceCounts {
 public:
  BalanceCounts(int64_t moe_layers, int64_t experts, BalanceScope scope,
                at::Device device = at::kCPU);

  void start_step();  // forgets the micro-batches of the last step

  // Collective over `world`, unless the scope is kRank, or kDocument, which needs no counts of
  // others. `routings`: those of the micro-batch's
  // slices one after another, each in order of layers; `tokens` of all of them that the losses are
  // of.
  void start(Communicator& world, const std::vector<const Routing*>& routings, int64_t tokens);

  // Waits. Not for kDocument. Of a layer of E experts, over the scope: C_e i64 [E], and T_c i64
  // [1].
  struct OfLayer {
    at::Tensor counts, tokens;
  };
  OfLayer of_layer(int64_t layer, int64_t experts);

 private:
  int64_t layers_, experts_;
  BalanceScope scope_;
  at::Tensor arriving_, total_;  // i64 [layers, E + 1] counts, and tokens
  std::unique_ptr<Pending> pending_;
};

// What the auxiliary losses add to a layer's router gradients (Backend::route_backward); nothing in
// a dense layer.
struct RouterLosses {
  at::Tensor balance;  // f32 [E], or by document [N, E]
  float z = 0;
};

}  // namespace emo

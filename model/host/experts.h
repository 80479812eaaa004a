// The routed experts of this rank, applied to the rows of an exchange's plan.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/backend.h"
#include "model/host/feed_forward.h"
#include "model/host/scratch.h"
#include "parallel/expert_exchange.h"

namespace emo {

// Stored, here and below, is what the pass stores: float or Bf16. Q pairs.

// For each pair of `rows` Stored (parallel/expert_exchange.h) its expert's result times its weight,
// to results->rows. Keeps hidden Stored [Q, 2 F].
template <typename Stored>
void apply_experts(const std::vector<FeedForwardView>& experts, const ExchangePlan& plan,
                   const PlanRows& rows, at::Tensor* hidden, PairResults* results,
                   Scratch* scratch);

// After apply_experts: the length of each pair's weighted result, to results->scalars.
template <typename Stored>
void pair_lengths(const ExchangePlan& plan, int64_t D, PairResults* results);

// `hidden` alone, the same bits: what a backward pass needs where it was not kept.
template <typename Stored>
void apply_experts_hidden(const std::vector<FeedForwardView>& experts, const ExchangePlan& plan,
                          const PlanRows& rows, at::Tensor* hidden, Scratch* scratch);

// From d_out Stored, the gradients of the sums over a row's pairs: those of each pair's input, to
// results->rows, and of its weight, to results->scalars; and the experts' gradients,
// added to what they hold (`onto`) or written over it, by zeros where an expert has no pairs.
// `hidden` is overwritten.
template <typename Stored>
void apply_experts_backward(const std::vector<FeedForwardView>& experts,
                            const std::vector<FeedForwardView>& gradients, bool onto,
                            const ExchangePlan& plan, const PlanRows& rows,
                            const at::Tensor& hidden, const PlanRows& d_out, PairResults* results,
                            Scratch* scratch);

}  // namespace emo

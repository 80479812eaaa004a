// The routed experts of this rank, applied to the rows that an exchange brought.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/feed_forward.h"
#include "model/scratch.h"
#include "parallel/expert_exchange.h"

namespace emo {

// Buffers of [Q, ...] that layers share, kept from call to call. E, here and below, is what the
// pass stores: float or Bf16.
struct ExpertBuffers {
  at::Tensor pair_rows;     // E [Q, D] an expert's result, or gradient, for each pair
  at::Tensor pair_scalars;  // [Q] gradient of each pair's weight, or length of its result
};

// out E [R, D]: for each of rows E [R, D] the weighted sum of its experts' results. Keeps hidden
// E [Q, 2 F].
template <typename E>
void apply_experts(const std::vector<FeedForwardView>& experts, const ExchangePlan& plan,
                   const at::Tensor& rows, at::Tensor* hidden, const at::Tensor& out,
                   ExpertBuffers* buffers, Scratch* scratch);

// After apply_experts: the length of each pair's weighted result, to buffers->pair_scalars.
template <typename E>
void pair_lengths(const ExchangePlan& plan, int64_t D, ExpertBuffers* buffers);

// `hidden` alone, the same bits: what a backward pass needs where it was not kept.
template <typename E>
void apply_experts_hidden(const std::vector<FeedForwardView>& experts, const ExchangePlan& plan,
                          const at::Tensor& rows, at::Tensor* hidden, Scratch* scratch);

// From d_out E [R, D]: d_rows E [R, D] and the experts' gradients, added to what they hold (`onto`)
// or written over it, by zeros where an expert has no pairs. Leaves the gradients of the pairs'
// weights in buffers->pair_scalars. `hidden` is overwritten.
template <typename E>
void apply_experts_backward(const std::vector<FeedForwardView>& experts,
                            const std::vector<FeedForwardView>& gradients, bool onto,
                            const ExchangePlan& plan, const at::Tensor& rows,
                            const at::Tensor& hidden, const at::Tensor& d_out,
                            const at::Tensor& d_rows, ExpertBuffers* buffers, Scratch* scratch);

}  // namespace emo

// SwiGLU feed-forwards on a device (model/host/feed_forward.h): the routed experts of this rank by
// grouped products, shared experts and dense layers by plain ones.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/backend.h"
#include "model/device/exchange.h"
#include "model/weights.h"

namespace emo::device {

// The first product of each: S [pairs, 2 F] of routed experts, S [T, 2 F] of what every token goes
// through. What the functions below keep, computed again.
at::Tensor hidden_pairs(const FeedForwardWeights& experts, const ExchangePlan& plan,
                        const at::Tensor& rows);
std::vector<at::Tensor> hidden_rows(const std::vector<FeedForwardWeights>& weights,
                                    const at::Tensor& x);

// Routed experts: from rows S [R, D] the weighted results of their pairs S [pairs, D]. Keeps hidden
// S [pairs, 2 F].
at::Tensor apply_experts(const FeedForwardWeights& experts, const ExchangePlan& plan,
                         const at::Tensor& rows, at::Tensor* hidden);

// f32 [R, K]: the lengths of the rows of S [pairs, D] by slot; 0 where it is not here.
at::Tensor slot_lengths(const ExchangePlan& plan, const at::Tensor& pairs);

// Adds to the experts' gradients (f32), or with `onto` false overwrites them; overwrites `hidden`.
// Answers the gradients of the pairs' inputs S [pairs, D], and as scalars those of the weights by
// slot f32 [R, K]; 0 where a slot is not here.
PairResults apply_experts_backward(const FeedForwardWeights& experts,
                                   const FeedForwardWeights& gradients, bool onto,
                                   const ExchangePlan& plan, const at::Tensor& rows,
                                   const at::Tensor& hidden, const at::Tensor& d_out);

// What every token goes through: adds to y S [T, D]. Keeps hidden, a tensor S [T, 2 F] for each.
std::vector<at::Tensor> always_forward(const std::vector<FeedForwardWeights>& weights,
                                       const at::Tensor& x, const at::Tensor& y);
// Answers the gradient of x S [T, D] (zeros where there are no weights); overwrites `hidden`.
at::Tensor always_backward(const std::vector<FeedForwardWeights>& weights,
                           const std::vector<FeedForwardWeights>& gradients, const at::Tensor& x,
                           const std::vector<at::Tensor>& hidden, const at::Tensor& dy);

}  // namespace emo::device

// SwiGLU feed-forwards on a device (model/host/feed_forward.h): the routed experts of this rank by
// grouped products, shared experts and dense layers by plain ones.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/device/exchange.h"
#include "model/device/weights.h"

namespace emo::device {

// The first product of each: S [pairs, 2 F] of routed experts, S [T, 2 F] of what every token goes
// through. What the functions below keep, computed again.
at::Tensor hidden_pairs(const FeedForwardTensors& experts, const ExchangePlan& plan,
                        const at::Tensor& rows);
std::vector<at::Tensor> hidden_rows(const std::vector<FeedForwardTensors>& weights,
                                    const at::Tensor& x);

// Routed experts: rows S [R, D] -> weighted sums of their experts' results S [R, D]. Keeps hidden
// S [pairs, 2 F]. `lengths`, where not null: of each slot's weighted result, f32 [R, K]; 0 where it
// is not here.
at::Tensor apply_experts(const FeedForwardTensors& experts, const ExchangePlan& plan,
                         const at::Tensor& rows, at::Tensor* hidden, at::Tensor* lengths = nullptr);

struct ExpertGradients {
  at::Tensor rows;   // S [R, D]
  at::Tensor slots;  // f32 [R, K] of the weights; 0 where a slot is not here
};
// Adds to the experts' gradients (f32), or with `onto` false overwrites them; overwrites `hidden`.
ExpertGradients apply_experts_backward(const FeedForwardTensors& experts,
                                       const FeedForwardTensors& gradients, bool onto,
                                       const ExchangePlan& plan, const at::Tensor& rows,
                                       const at::Tensor& hidden, const at::Tensor& d_out);

// What every token goes through: adds to y S [T, D]. Keeps hidden, a tensor S [T, 2 F] for each.
std::vector<at::Tensor> always_forward(const std::vector<FeedForwardTensors>& weights,
                                       const at::Tensor& x, const at::Tensor& y);
// Answers the gradient of x S [T, D] (zeros where there are no weights); overwrites `hidden`.
at::Tensor always_backward(const std::vector<FeedForwardTensors>& weights,
                           const std::vector<FeedForwardTensors>& gradients, const at::Tensor& x,
                           const std::vector<at::Tensor>& hidden, const at::Tensor& dy);

}  // namespace emo::device

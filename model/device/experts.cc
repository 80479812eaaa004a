#include "model/device/experts.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "model/device/kernels/swiglu.h"
#include "model/device/matrix.h"

namespace emo::device {
namespace {

at::Tensor empty_activation(const at::Tensor& hidden) {
  return at::empty({hidden.size(0), hidden.size(1) / 2}, hidden.options());
}

}  // namespace

at::Tensor hidden_pairs(const FeedForwardWeights& experts, const ExchangePlan& plan,
                        const at::Tensor& rows) {
  return grouped_linear(rows_to_pairs(plan, rows), experts.gate_up, plan.ends);
}

std::vector<at::Tensor> hidden_rows(const std::vector<FeedForwardWeights>& weights,
                                    const at::Tensor& x) {
  std::vector<at::Tensor> hidden;
  for (const FeedForwardWeights& w : weights) hidden.push_back(linear(x, w.gate_up));
  return hidden;
}

at::Tensor apply_experts(const FeedForwardWeights& experts, const ExchangePlan& plan,
                         const at::Tensor& rows, at::Tensor* hidden) {
  *hidden = hidden_pairs(experts, plan, rows);
  const at::Tensor act = empty_activation(*hidden);
  swiglu(*hidden, {plan.slot_of_pair, plan.weights}, act);
  return grouped_linear(act, experts.down, plan.ends);
}

at::Tensor slot_lengths(const ExchangePlan& plan, const at::Tensor& pairs) {
  const at::Tensor& pair = plan.pair_of_slot;
  if (pairs.size(0) == 0) return at::zeros(pair.sizes(), pair.options().dtype(at::kFloat));
  const at::Tensor lengths = pairs.to(at::kFloat).norm(2, 1);
  const at::Tensor of_slots = lengths.index_select(0, pair.clamp_min(0).flatten().to(at::kLong));
  return of_slots.view(pair.sizes()).masked_fill(pair.lt(0), 0);
}

PairResults apply_experts_backward(const FeedForwardWeights& experts,
                                   const FeedForwardWeights& gradients, bool onto,
                                   const ExchangePlan& plan, const at::Tensor& rows,
                                   const at::Tensor& hidden, const at::Tensor& d_out) {
  const at::Tensor d_pairs = rows_to_pairs(plan, d_out);
  const at::Tensor d_act = grouped_linear_input_gradient(d_pairs, experts.down, plan.ends);
  const at::Tensor act = empty_activation(hidden);
  PairResults result;
  result.scalars = at::zeros(plan.pair_of_slot.sizes(), plan.weights.options());
  swiglu_backward(hidden, {plan.slot_of_pair, plan.weights}, d_act, act, result.scalars);
  add_grouped_weight_gradient(gradients.down, onto, d_pairs, act, plan.ends);
  add_grouped_weight_gradient(gradients.gate_up, onto, hidden, rows_to_pairs(plan, rows),
                              plan.ends);
  result.rows = grouped_linear_input_gradient(hidden, experts.gate_up, plan.ends);
  return result;
}

std::vector<at::Tensor> always_forward(const std::vector<FeedForwardWeights>& weights,
                                       const at::Tensor& x, const at::Tensor& y) {
  std::vector<at::Tensor> hidden = hidden_rows(weights, x);
  for (size_t i = 0; i < weights.size(); ++i) {
    const at::Tensor act = empty_activation(hidden[i]);
    swiglu(hidden[i], {}, act);
    y.addmm_(act, weights[i].down.t());
  }
  return hidden;
}

at::Tensor always_backward(const std::vector<FeedForwardWeights>& weights,
                           const std::vector<FeedForwardWeights>& gradients, const at::Tensor& x,
                           const std::vector<at::Tensor>& hidden, const at::Tensor& dy) {
  const at::Tensor dx = at::zeros_like(x);
  for (size_t i = 0; i < weights.size(); ++i) {
    const at::Tensor d_act = linear_input_gradient(dy, weights[i].down);
    const at::Tensor act = empty_activation(hidden[i]);
    swiglu_backward(hidden[i], {}, d_act, act, {});
    add_weight_gradient(gradients[i].down, dy, act);
    add_weight_gradient(gradients[i].gate_up, hidden[i], x);
    dx.addmm_(hidden[i], weights[i].gate_up);
  }
  return dx;
}

}  // namespace emo::device

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

// f32 [R, K]: the lengths of the rows of S [pairs, D] by slot.
at::Tensor slot_lengths(const ExchangePlan& plan, const at::Tensor& pairs) {
  const at::Tensor& pair = plan.pair_of_slot;
  if (pairs.size(0) == 0) return at::zeros(pair.sizes(), pair.options().dtype(at::kFloat));
  const at::Tensor lengths = pairs.to(at::kFloat).norm(2, 1);
  const at::Tensor of_slots = lengths.index_select(0, pair.clamp_min(0).flatten().to(at::kLong));
  return of_slots.view(pair.sizes()).masked_fill(pair.lt(0), 0);
}

}  // namespace

at::Tensor hidden_pairs(const FeedForwardTensors& experts, const ExchangePlan& plan,
                        const at::Tensor& rows) {
  return grouped_linear(rows_to_pairs(plan, rows), experts.gate_up, plan.ends);
}

std::vector<at::Tensor> hidden_rows(const std::vector<FeedForwardTensors>& weights,
                                    const at::Tensor& x) {
  std::vector<at::Tensor> hidden;
  for (const FeedForwardTensors& w : weights) hidden.push_back(linear(x, w.gate_up));
  return hidden;
}

at::Tensor apply_experts(const FeedForwardTensors& experts, const ExchangePlan& plan,
                         const at::Tensor& rows, at::Tensor* hidden, at::Tensor* lengths) {
  *hidden = hidden_pairs(experts, plan, rows);
  const at::Tensor act = empty_activation(*hidden);
  swiglu(*hidden, {plan.slot_of_pair, plan.weights}, act);
  const at::Tensor results = grouped_linear(act, experts.down, plan.ends);
  if (lengths != nullptr) *lengths = slot_lengths(plan, results);
  return pairs_to_rows(plan, results);
}

ExpertGradients apply_experts_backward(const FeedForwardTensors& experts,
                                       const FeedForwardTensors& gradients, bool onto,
                                       const ExchangePlan& plan, const at::Tensor& rows,
                                       const at::Tensor& hidden, const at::Tensor& d_out) {
  const at::Tensor d_pairs = rows_to_pairs(plan, d_out);
  const at::Tensor d_act = grouped_linear_input_gradient(d_pairs, experts.down, plan.ends);
  const at::Tensor act = empty_activation(hidden);
  ExpertGradients result;
  result.slots = at::zeros(plan.pair_of_slot.sizes(), plan.weights.options());
  swiglu_backward(hidden, {plan.slot_of_pair, plan.weights}, d_act, act, result.slots);
  add_grouped_weight_gradient(gradients.down, onto, d_pairs, act, plan.ends);
  add_grouped_weight_gradient(gradients.gate_up, onto, hidden, rows_to_pairs(plan, rows),
                              plan.ends);
  result.rows =
      pairs_to_rows(plan, grouped_linear_input_gradient(hidden, experts.gate_up, plan.ends));
  return result;
}

std::vector<at::Tensor> always_forward(const std::vector<FeedForwardTensors>& weights,
                                       const at::Tensor& x, const at::Tensor& y) {
  std::vector<at::Tensor> hidden = hidden_rows(weights, x);
  for (size_t i = 0; i < weights.size(); ++i) {
    const at::Tensor act = empty_activation(hidden[i]);
    swiglu(hidden[i], {}, act);
    y.addmm_(act, weights[i].down.t());
  }
  return hidden;
}

at::Tensor always_backward(const std::vector<FeedForwardTensors>& weights,
                           const std::vector<FeedForwardTensors>& gradients, const at::Tensor& x,
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

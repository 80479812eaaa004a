#include "model/moe_layer.h"

#include <utility>

#include "model/linear.h"

namespace emo {

void always_forward(const std::vector<FeedForwardView>& weights, const at::Tensor& x,
                    const at::Tensor& y, std::vector<at::Tensor>* hidden,
                    FeedForwardBuffers* buffers) {
  const int64_t T = x.size(0);
  hidden->resize(weights.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    const int64_t F = weights[i].F;
    feed_forward(weights[i], T, x.const_data_ptr<float>(), nullptr,
                 shape_buffer(&(*hidden)[i], {T, 2 * F}).mutable_data_ptr<float>(),
                 shape_buffer(&buffers->act, {T, F}).mutable_data_ptr<float>(), 1,
                 y.mutable_data_ptr<float>());
  }
}

void always_backward(const std::vector<FeedForwardView>& weights,
                     const std::vector<FeedForwardView>& gradients, const at::Tensor& x,
                     const at::Tensor& dy, const at::Tensor& dx, std::vector<at::Tensor>* hidden,
                     FeedForwardBuffers* buffers) {
  const int64_t T = x.size(0);
  if (weights.empty()) zero_buffer(dx);
  for (size_t i = 0; i < weights.size(); ++i) {
    const int64_t F = weights[i].F;
    feed_forward_backward(weights[i], gradients[i], T, x.const_data_ptr<float>(), nullptr,
                          (*hidden)[i].mutable_data_ptr<float>(), dy.const_data_ptr<float>(),
                          shape_buffer(&buffers->act, {T, F}).mutable_data_ptr<float>(),
                          shape_buffer(&buffers->d_act, {T, F}).mutable_data_ptr<float>(),
                          i == 0 ? 0 : 1, dx.mutable_data_ptr<float>(), nullptr);
  }
}

namespace {

// Where what the experts keep for the backward pass lies.
struct Hidden {
  at::Tensor* routed;
  std::vector<at::Tensor>* always;
};
Hidden hidden_of(const MoeContext& context, MoeActivations* kept, FeedForwardBuffers* buffers) {
  if (context.recompute == Recompute::kMoe)
    return {&buffers->routed_hidden, &buffers->always_hidden};
  return {&kept->routed_hidden, &kept->always_hidden};
}

void compute_always_hidden(const std::vector<FeedForwardView>& weights, const at::Tensor& x,
                           std::vector<at::Tensor>* hidden) {
  for (size_t i = 0; i < weights.size(); ++i) {
    feed_forward_hidden(
        weights[i], x.size(0), x.const_data_ptr<float>(),
        shape_buffer(&(*hidden)[i], {x.size(0), 2 * weights[i].F}).mutable_data_ptr<float>());
  }
}

}  // namespace

void moe_forward(const MoeContext& context, const LayerWeights& weights, const at::Tensor& x,
                 const at::Tensor& span_ends, std::vector<int64_t> pool_sizes,
                 const ExpertSubset& subset, const at::Tensor& y, MoeActivations* kept,
                 FeedForwardBuffers* buffers) {
  const int64_t T = x.size(0);
  const int64_t D = x.size(1);
  const int64_t E = context.config->routed_experts();
  const Hidden hidden = hidden_of(context, kept, buffers);

  Timed timed(context.profile, Work::kRouter);
  shape_buffer(&kept->logits, {T, E});
  linear(T, E, D, {x.const_data_ptr<float>(), D}, {weights.router, D}, 0,
         {kept->logits.mutable_data_ptr<float>(), E});
  kept->router_input = {kept->logits, span_ends, std::move(pool_sizes),
                        context.config->routed_top_k(), subset};
  route(kept->router_input, *context.contract, context.want_probability, &kept->routing);

  timed.switch_to(Work::kExchange);
  if (context.routed_off) kept->routing.experts.fill_(-1);
  plan_exchange(*context.ep, *weights.placement, kept->routing.experts, kept->routing.weights,
                context.mode, &kept->plan, &buffers->exchange);
  RowsInFlight flight = send_rows(*context.ep, kept->plan, x, &kept->arrived, &buffers->exchange);

  timed.switch_to(Work::kExperts);
  always_forward(weights.always, x, y, hidden.always, buffers);  // while rows are in flight
  timed.switch_to(Work::kExchange);
  kept->rows = flight.wait();
  timed.switch_to(Work::kExperts);
  shape_buffer(&buffers->out, {kept->plan.rows, D});
  apply_experts(weights.routed, kept->plan, kept->rows, hidden.routed, buffers->out,
                &buffers->experts, &buffers->scratch);

  timed.switch_to(Work::kExchange);
  return_rows(*context.ep, kept->plan, buffers->out, y, &buffers->exchange);
}

void moe_backward(const MoeContext& context, const LayerWeights& weights,
                  const LayerWeights& gradients, const at::Tensor& x, const at::Tensor& dy,
                  const std::vector<float>& balance, float z, const at::Tensor& dx,
                  MoeActivations* kept, FeedForwardBuffers* buffers) {
  const int64_t T = x.size(0);
  const int64_t D = x.size(1);
  const int64_t E = context.config->routed_experts();
  const Hidden hidden = hidden_of(context, kept, buffers);

  Timed timed(context.profile, Work::kExchange);
  RowsInFlight flight = send_rows(*context.ep, kept->plan, dy, &buffers->d_out, &buffers->exchange);
  timed.switch_to(Work::kExperts);
  if (context.recompute == Recompute::kMoe) {
    compute_always_hidden(weights.always, x, hidden.always);
    apply_experts_hidden(weights.routed, kept->plan, kept->rows, hidden.routed, &buffers->scratch);
  }
  always_backward(weights.always, gradients.always, x, dy, dx, hidden.always, buffers);
  timed.switch_to(Work::kExchange);
  const at::Tensor d_out = flight.wait();
  timed.switch_to(Work::kExperts);
  shape_buffer(&buffers->d_rows, {kept->plan.rows, D});
  apply_experts_backward(weights.routed, gradients.routed, kept->plan, kept->rows, *hidden.routed,
                         d_out, buffers->d_rows, &buffers->experts, &buffers->scratch);

  timed.switch_to(Work::kExchange);
  return_rows(*context.ep, kept->plan, buffers->d_rows, dx, &buffers->exchange);
  zero_buffer(shape_buffer(&buffers->slots, {T, context.config->routed_top_k()}));
  return_pairs(*context.ep, kept->plan, buffers->experts.pair_scalars, buffers->slots,
               &buffers->exchange);

  timed.switch_to(Work::kRouter);
  shape_buffer(&buffers->d_logits, {T, E});
  route_backward(kept->router_input, *context.contract, kept->routing, buffers->slots, balance, z,
                 buffers->d_logits);
  const ConstMatrixView d_logits(buffers->d_logits.const_data_ptr<float>(), E);
  linear_input_gradient(T, E, D, d_logits, {weights.router, D}, 1,
                        {dx.mutable_data_ptr<float>(), D});
  linear_weight_gradient(T, E, D, d_logits, {x.const_data_ptr<float>(), D}, 1,
                         {gradients.router, D});
}

}  // namespace emo

#include "model/moe_layer.h"

#include <algorithm>
#include <utility>

#include "model/host/linear.h"
#include "model/host/pair_sums.h"

namespace emo {

template <typename E>
void always_forward(const std::vector<FeedForwardView>& weights, const at::Tensor& x,
                    const at::Tensor& y, std::vector<at::Tensor>* hidden,
                    FeedForwardBuffers* buffers) {
  const int64_t T = x.size(0);
  hidden->resize(weights.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    const int64_t F = weights[i].F;
    feed_forward(weights[i], T, x.const_data_ptr<E>(), nullptr,
                 shape_stored<E>(&(*hidden)[i], {T, 2 * F}), shape_stored<E>(&buffers->act, {T, F}),
                 1, y.mutable_data_ptr<float>());
  }
}

template <typename E>
void always_backward(const std::vector<FeedForwardView>& weights,
                     const std::vector<FeedForwardView>& gradients, const at::Tensor& x,
                     const at::Tensor& dy, const at::Tensor& dx, std::vector<at::Tensor>* hidden,
                     FeedForwardBuffers* buffers) {
  const int64_t T = x.size(0);
  if (weights.empty()) zero_buffer(dx);
  for (size_t i = 0; i < weights.size(); ++i) {
    const int64_t F = weights[i].F;
    feed_forward_backward(weights[i], gradients[i], 1, T, x.const_data_ptr<E>(), nullptr,
                          (*hidden)[i].mutable_data_ptr<E>(), dy.const_data_ptr<E>(),
                          shape_stored<E>(&buffers->act, {T, F}),
                          shape_stored<E>(&buffers->d_act, {T, F}), i == 0 ? 0 : 1,
                          dx.mutable_data_ptr<float>(), nullptr);
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

template <typename E>
void compute_always_hidden(const std::vector<FeedForwardView>& weights, const at::Tensor& x,
                           std::vector<at::Tensor>* hidden) {
  for (size_t i = 0; i < weights.size(); ++i) {
    feed_forward_hidden(weights[i], x.size(0), x.const_data_ptr<E>(),
                        shape_stored<E>(&(*hidden)[i], {x.size(0), 2 * weights[i].F}));
  }
}

// Adds to each token of `tokens` f32 [T, D] what its experts left in buffers->experts.pair_rows,
// here and on other ranks; own sums while the others travel. Ends in exchange.
template <typename E>
void add_pairs(const MoeContext& context, const ExchangePlan& plan, const at::Tensor& tokens,
               Timed* timed, FeedForwardBuffers* buffers) {
  const at::Tensor& pair_rows = buffers->experts.pair_rows;
  shape_stored<E>(&buffers->out, {plan.arrived_rows(), tokens.size(1)});
  sum_arrived_rows<E>(plan, pair_rows, buffers->out);
  timed->switch_to(Work::kExchange);
  RowsInFlight flight = return_rows(*context.ep, plan, buffers->out, &buffers->exchange);
  timed->switch_to(Work::kExperts);
  add_own_rows<E>(plan, pair_rows, tokens);
  timed->switch_to(Work::kExchange);
  flight.wait();
  add_returned(plan, tokens, buffers->exchange);
}

}  // namespace

template <typename E>
void moe_forward(const MoeContext& context, const LayerWeights& weights, const at::Tensor& x,
                 const at::Tensor& span_ends, std::vector<int64_t> pool_sizes,
                 const ExpertSubset& subset, const at::Tensor& y, MoeActivations* kept,
                 FeedForwardBuffers* buffers) {
  const int64_t T = x.size(0);
  const int64_t D = x.size(1);
  const int64_t experts = weights.placement->experts;
  const int64_t K = std::min(context.config->routed_top_k(), experts);
  const Hidden hidden = hidden_of(context, kept, buffers);

  Timed timed(context.profile, Work::kRouter);
  shape_buffer(&kept->logits, {T, experts});
  linear(T, experts, D, {x.const_data_ptr<E>(), D}, {weights.router, D}, 0,
         {kept->logits.mutable_data_ptr<float>(), experts});
  kept->router_input = {kept->logits, span_ends, std::move(pool_sizes), K, subset, context.labels};
  route(kept->router_input, *context.contract, &kept->routing);

  timed.switch_to(Work::kExchange);
  if (context.routed_off) kept->routing.experts.fill_(-1);
  plan_exchange(*context.ep, *weights.placement, kept->routing.experts, kept->routing.weights,
                context.mode, &kept->plan, &buffers->exchange);
  RowsInFlight flight = send_rows(*context.ep, kept->plan, x, &kept->arrived, &buffers->exchange);

  timed.switch_to(Work::kExperts);
  always_forward<E>(weights.always, x, y, hidden.always, buffers);  // while rows are in flight
  timed.switch_to(Work::kExchange);
  flight.wait();
  timed.switch_to(Work::kExperts);
  apply_experts<E>(weights.routed, kept->plan, {x, kept->arrived}, hidden.routed, &buffers->experts,
                   &buffers->scratch);
  add_pairs<E>(context, kept->plan, y, &timed, buffers);
  if (!context.want_contributions) return;
  pair_lengths<E>(kept->plan, D, &buffers->experts);
  zero_buffer(shape_buffer(&kept->contributions, {T, K}));
  return_pairs(*context.ep, kept->plan, buffers->experts.pair_scalars, kept->contributions,
               &buffers->exchange);
}

template <typename E>
void moe_backward(const MoeContext& context, const LayerWeights& weights,
                  const LayerWeights& gradients, const at::Tensor& x, const at::Tensor& dy,
                  const std::vector<float>& balance, float z, const at::Tensor& dx,
                  MoeActivations* kept, FeedForwardBuffers* buffers) {
  const int64_t T = x.size(0);
  const int64_t D = x.size(1);
  const int64_t experts = weights.placement->experts;
  const int64_t K = std::min(context.config->routed_top_k(), experts);
  const Hidden hidden = hidden_of(context, kept, buffers);

  Timed timed(context.profile, Work::kExchange);
  RowsInFlight flight = send_rows(*context.ep, kept->plan, dy, &buffers->d_out, &buffers->exchange);
  timed.switch_to(Work::kExperts);
  if (context.recompute == Recompute::kMoe) {
    compute_always_hidden<E>(weights.always, x, hidden.always);
    apply_experts_hidden<E>(weights.routed, kept->plan, {x, kept->arrived}, hidden.routed,
                            &buffers->scratch);
  }
  always_backward<E>(weights.always, gradients.always, x, dy, dx, hidden.always, buffers);
  timed.switch_to(Work::kExchange);
  flight.wait();
  timed.switch_to(Work::kExperts);
  apply_experts_backward<E>(weights.routed, gradients.routed, context.onto_expert_gradients,
                            kept->plan, {x, kept->arrived}, *hidden.routed, {dy, buffers->d_out},
                            &buffers->experts, &buffers->scratch);
  add_pairs<E>(context, kept->plan, dx, &timed, buffers);
  zero_buffer(shape_buffer(&buffers->slots, {T, K}));
  return_pairs(*context.ep, kept->plan, buffers->experts.pair_scalars, buffers->slots,
               &buffers->exchange);

  timed.switch_to(Work::kRouter);
  shape_buffer(&buffers->d_logits, {T, experts});
  route_backward(kept->router_input, *context.contract, kept->routing, buffers->slots, balance, z,
                 buffers->d_logits);
  const BasicConstMatrixView<E> d_logits(
      as_stored<E>(buffers->d_logits, &buffers->d_logits_stored).template const_data_ptr<E>(),
      experts);
  linear_input_gradient(T, experts, D, d_logits, {weights.router, D}, 1,
                        {dx.mutable_data_ptr<float>(), D});
  linear_weight_gradient(T, experts, D, d_logits, {x.const_data_ptr<E>(), D}, 1,
                         {gradients.router, D});
}

template void always_forward<float>(const std::vector<FeedForwardView>&, const at::Tensor&,
                                    const at::Tensor&, std::vector<at::Tensor>*,
                                    FeedForwardBuffers*);
template void always_backward<float>(const std::vector<FeedForwardView>&,
                                     const std::vector<FeedForwardView>&, const at::Tensor&,
                                     const at::Tensor&, const at::Tensor&, std::vector<at::Tensor>*,
                                     FeedForwardBuffers*);
template void moe_forward<float>(const MoeContext&, const LayerWeights&, const at::Tensor&,
                                 const at::Tensor&, std::vector<int64_t>, const ExpertSubset&,
                                 const at::Tensor&, MoeActivations*, FeedForwardBuffers*);
template void moe_backward<float>(const MoeContext&, const LayerWeights&, const LayerWeights&,
                                  const at::Tensor&, const at::Tensor&, const std::vector<float>&,
                                  float, const at::Tensor&, MoeActivations*, FeedForwardBuffers*);
template void always_forward<Bf16>(const std::vector<FeedForwardView>&, const at::Tensor&,
                                   const at::Tensor&, std::vector<at::Tensor>*,
                                   FeedForwardBuffers*);
template void always_backward<Bf16>(const std::vector<FeedForwardView>&,
                                    const std::vector<FeedForwardView>&, const at::Tensor&,
                                    const at::Tensor&, const at::Tensor&, std::vector<at::Tensor>*,
                                    FeedForwardBuffers*);
template void moe_forward<Bf16>(const MoeContext&, const LayerWeights&, const at::Tensor&,
                                const at::Tensor&, std::vector<int64_t>, const ExpertSubset&,
                                const at::Tensor&, MoeActivations*, FeedForwardBuffers*);
template void moe_backward<Bf16>(const MoeContext&, const LayerWeights&, const LayerWeights&,
                                 const at::Tensor&, const at::Tensor&, const std::vector<float>&,
                                 float, const at::Tensor&, MoeActivations*, FeedForwardBuffers*);

}  // namespace emo

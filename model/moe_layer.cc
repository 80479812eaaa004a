#include "model/moe_layer.h"

#include <algorithm>
#include <utility>

#include "model/host/linear.h"
#include "model/host/pair_sums.h"
#include "model/pool_sizes.h"

namespace emo {

template <typename Stored>
void always_forward(const std::vector<FeedForwardView>& weights, const at::Tensor& x,
                    std::vector<at::Tensor>* hidden, FeedForwardBuffers* buffers, at::Tensor* y) {
  const int64_t T = x.size(0);
  hidden->resize(weights.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    const int64_t F = weights[i].F;
    const FeedForwardMemory<Stored> memory{shape_stored<Stored>(&(*hidden)[i], {T, 2 * F}),
                                           shape_stored<Stored>(&buffers->act, {T, F})};
    feed_forward<Stored>(weights[i], {T, x.const_data_ptr<Stored>()}, memory, 1,
                         y->mutable_data_ptr<float>());
  }
}

template <typename Stored>
void always_backward(const std::vector<FeedForwardView>& weights, const at::Tensor& x,
                     const at::Tensor& dy, std::vector<at::Tensor>* hidden,
                     FeedForwardBuffers* buffers, std::vector<FeedForwardView>* gradients,
                     at::Tensor* dx) {
  const int64_t T = x.size(0);
  if (weights.empty()) zero_buffer(*dx);
  for (size_t i = 0; i < weights.size(); ++i) {
    const int64_t F = weights[i].F;
    const FeedForwardMemory<Stored> memory{(*hidden)[i].mutable_data_ptr<Stored>(),
                                           shape_stored<Stored>(&buffers->act, {T, F}),
                                           shape_stored<Stored>(&buffers->d_act, {T, F})};
    feed_forward_backward<Stored>(weights[i], {T, x.const_data_ptr<Stored>()},
                                  dy.const_data_ptr<Stored>(), memory, 1, (*gradients)[i],
                                  i == 0 ? 0 : 1, dx->mutable_data_ptr<float>(), nullptr);
  }
}

namespace {

// Where what the experts keep for the backward pass lies.
struct Hidden {
  at::Tensor* routed;
  std::vector<at::Tensor>* always;
};
Hidden hidden_of(const BlockContext& context, MoeActivations* kept, FeedForwardBuffers* buffers) {
  if (context.pass.settings.recompute == Recompute::kMoe)
    return {&buffers->routed_hidden, &buffers->always_hidden};
  return {&kept->routed_hidden, &kept->always_hidden};
}

template <typename Stored>
void compute_always_hidden(const std::vector<FeedForwardView>& weights, const at::Tensor& x,
                           std::vector<at::Tensor>* hidden) {
  for (size_t i = 0; i < weights.size(); ++i) {
    feed_forward_hidden(weights[i], x.size(0), x.const_data_ptr<Stored>(),
                        shape_stored<Stored>(&(*hidden)[i], {x.size(0), 2 * weights[i].F}));
  }
}

// Adds to each token of `tokens` f32 [T, D] what its experts left in buffers->experts.pair_rows,
// here and on other ranks; own sums while the others travel. Ends in exchange.
template <typename Stored>
void add_pairs(Communicator& ep, const ExchangePlan& plan, FeedForwardBuffers* buffers,
               Timed* timed, at::Tensor* tokens) {
  const at::Tensor& pair_rows = buffers->experts.pair_rows;
  shape_stored<Stored>(&buffers->out, {plan.arrived_rows(), tokens->size(1)});
  sum_arrived_rows<Stored>(plan, pair_rows, &buffers->out);
  timed->switch_to(Work::kExchange);
  RowsInFlight flight = return_rows(ep, plan, buffers->out, &buffers->exchange);
  timed->switch_to(Work::kExperts);
  add_own_rows<Stored>(plan, pair_rows, tokens);
  timed->switch_to(Work::kExchange);
  flight.wait();
  add_returned(plan, *tokens, buffers->exchange);
}

// What the router of a layer sees.
RouterInput router_input(const BlockContext& context, const Slice& slice, int64_t layer,
                         const at::Tensor& logits) {
  const PassSettings& settings = context.pass.settings;
  const PoolPolicy& pool = settings.pool_of(context.contract);
  const int64_t experts = logits.size(1);
  RouterInput input;
  input.logits = logits;
  input.span_ends = slice.routing_ends;
  input.pool = pool;
  input.pool_sizes = draw_pool_sizes(pool, context.contract.pool_draw, settings.seed,
                                     slice.sequence_index, slice.ordinal, layer, experts);
  input.top_k = std::min(context.config.routed_top_k(), experts);
  if (!settings.subsets.empty()) input.subset = settings.subsets[layer];
  if (context.contract.losses_over == LossTokens::kLabelled) input.labels = slice.labels;
  return input;
}

}  // namespace

template <typename Stored>
void moe_forward(const BlockContext& context, const LayerWeights& weights, const Slice& slice,
                 int64_t layer, const at::Tensor& x, MoeActivations* kept,
                 FeedForwardBuffers* buffers, at::Tensor* y) {
  const PassOptions& pass = context.pass;
  const int64_t T = x.size(0);
  const int64_t D = x.size(1);
  const int64_t experts = weights.placement->experts;
  const Hidden hidden = hidden_of(context, kept, buffers);

  Timed timed(pass.profile, Work::kRouter);
  shape_buffer(&kept->logits, {T, experts});
  linear(T, experts, D, {x.const_data_ptr<Stored>(), D}, {weights.router, D}, 0,
         {kept->logits.mutable_data_ptr<float>(), experts});
  kept->router_input = router_input(context, slice, layer, kept->logits);
  route(kept->router_input, context.contract, &kept->routing);

  timed.switch_to(Work::kExchange);
  if (pass.settings.routed_off) kept->routing.experts.fill_(-1);
  plan_exchange(*pass.ep, *weights.placement, kept->routing.experts, kept->routing.weights,
                pass.settings.exchange, &kept->plan, &buffers->exchange);
  RowsInFlight flight = send_rows(*pass.ep, kept->plan, x, &kept->arrived, &buffers->exchange);

  timed.switch_to(Work::kExperts);
  always_forward<Stored>(weights.always, x, hidden.always, buffers, y);  // while rows are in flight
  timed.switch_to(Work::kExchange);
  flight.wait();
  timed.switch_to(Work::kExperts);
  apply_experts<Stored>(weights.routed, kept->plan, {x, kept->arrived}, hidden.routed,
                        &buffers->experts, &buffers->scratch);
  add_pairs<Stored>(*pass.ep, kept->plan, buffers, &timed, y);
  if (!pass.want_contributions) return;
  pair_lengths<Stored>(kept->plan, D, &buffers->experts);
  zero_buffer(shape_buffer(&kept->contributions, {T, kept->router_input.top_k}));
  return_pairs(*pass.ep, kept->plan, buffers->experts.pair_scalars, kept->contributions,
               &buffers->exchange);
}

template <typename Stored>
void moe_backward(const BlockContext& context, const LayerWeights& weights, const at::Tensor& x,
                  const at::Tensor& dy, const RouterLosses& losses, MoeActivations* kept,
                  FeedForwardBuffers* buffers, LayerWeights* gradients, at::Tensor* dx) {
  Communicator& ep = *context.pass.ep;
  const int64_t T = x.size(0);
  const int64_t D = x.size(1);
  const int64_t experts = weights.placement->experts;
  const Hidden hidden = hidden_of(context, kept, buffers);

  Timed timed(context.pass.profile, Work::kExchange);
  RowsInFlight flight = send_rows(ep, kept->plan, dy, &buffers->d_out, &buffers->exchange);
  timed.switch_to(Work::kExperts);
  if (context.pass.settings.recompute == Recompute::kMoe) {
    compute_always_hidden<Stored>(weights.always, x, hidden.always);
    apply_experts_hidden<Stored>(weights.routed, kept->plan, {x, kept->arrived}, hidden.routed,
                                 &buffers->scratch);
  }
  always_backward<Stored>(weights.always, x, dy, hidden.always, buffers, &gradients->always, dx);
  timed.switch_to(Work::kExchange);
  flight.wait();
  timed.switch_to(Work::kExperts);
  apply_experts_backward<Stored>(weights.routed, gradients->routed, context.onto_expert_gradients,
                                 kept->plan, {x, kept->arrived}, *hidden.routed,
                                 {dy, buffers->d_out}, &buffers->experts, &buffers->scratch);
  add_pairs<Stored>(ep, kept->plan, buffers, &timed, dx);
  zero_buffer(shape_buffer(&buffers->slots, {T, kept->router_input.top_k}));
  return_pairs(ep, kept->plan, buffers->experts.pair_scalars, buffers->slots, &buffers->exchange);

  timed.switch_to(Work::kRouter);
  shape_buffer(&buffers->d_logits, {T, experts});
  route_backward(kept->router_input, context.contract, kept->routing, buffers->slots,
                 losses.balance, losses.z, buffers->d_logits);
  const BasicConstMatrixView<Stored> d_logits(
      as_stored<Stored>(buffers->d_logits, &buffers->d_logits_stored)
          .template const_data_ptr<Stored>(),
      experts);
  linear_input_gradient(T, experts, D, d_logits, {weights.router, D}, 1,
                        {dx->mutable_data_ptr<float>(), D});
  linear_weight_gradient(T, experts, D, d_logits, {x.const_data_ptr<Stored>(), D}, 1,
                         {gradients->router, D});
}

template void always_forward<float>(const std::vector<FeedForwardView>&, const at::Tensor&,
                                    std::vector<at::Tensor>*, FeedForwardBuffers*, at::Tensor*);
template void always_backward<float>(const std::vector<FeedForwardView>&, const at::Tensor&,
                                     const at::Tensor&, std::vector<at::Tensor>*,
                                     FeedForwardBuffers*, std::vector<FeedForwardView>*,
                                     at::Tensor*);
template void moe_forward<float>(const BlockContext&, const LayerWeights&, const Slice&, int64_t,
                                 const at::Tensor&, MoeActivations*, FeedForwardBuffers*,
                                 at::Tensor*);
template void moe_backward<float>(const BlockContext&, const LayerWeights&, const at::Tensor&,
                                  const at::Tensor&, const RouterLosses&, MoeActivations*,
                                  FeedForwardBuffers*, LayerWeights*, at::Tensor*);
template void always_forward<Bf16>(const std::vector<FeedForwardView>&, const at::Tensor&,
                                   std::vector<at::Tensor>*, FeedForwardBuffers*, at::Tensor*);
template void always_backward<Bf16>(const std::vector<FeedForwardView>&, const at::Tensor&,
                                    const at::Tensor&, std::vector<at::Tensor>*,
                                    FeedForwardBuffers*, std::vector<FeedForwardView>*,
                                    at::Tensor*);
template void moe_forward<Bf16>(const BlockContext&, const LayerWeights&, const Slice&, int64_t,
                                const at::Tensor&, MoeActivations*, FeedForwardBuffers*,
                                at::Tensor*);
template void moe_backward<Bf16>(const BlockContext&, const LayerWeights&, const at::Tensor&,
                                 const at::Tensor&, const RouterLosses&, MoeActivations*,
                                 FeedForwardBuffers*, LayerWeights*, at::Tensor*);

}  // namespace emo

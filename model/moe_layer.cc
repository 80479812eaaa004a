#include "model/moe_layer.h"

#include <c10/util/Exception.h>

namespace emo {
namespace {

// Where what the experts keep for the backward pass lies.
struct Hidden {
  at::Tensor* routed;
  std::vector<at::Tensor>* shared;
};
Hidden hidden_of(const BlockContext& context, MoeActivations* kept, MoeBuffers* buffers) {
  if (context.pass.settings.recompute == Recompute::kMoe)
    return {&buffers->routed_hidden, &buffers->shared_hidden};
  return {&kept->routed_hidden, &kept->shared_hidden};
}

// What the router of a layer sees, but for the logits.
void set_router_input(const BlockContext& context, const LayerWeights& weights,
                      const PlacedSlice& slice, int64_t layer, RouterInput* input) {
  const PassSettings& settings = context.pass.settings;
  input->spans = slice.routing;
  input->pool_sizes = slice.pool_sizes[layer];
  input->pool = settings.pool_of(context.contract).of_layer(layer);
  input->top_k = context.config.routed_top_k(layer);
  input->subset = settings.subsets.empty() ? ExpertSubset() : settings.subsets[layer];
  input->labels =
      context.contract.losses_over == LossTokens::kLabelled ? slice.labels : at::Tensor();
  input->bias =
      weights.selection_bias.defined() ? weights.selection_bias.to(at::kFloat) : at::Tensor();
}

// The noise on what it sees: in training passes only, on the tokens alone.
RouterJitter router_jitter(const BlockContext& context, const PlacedSlice& slice, int64_t layer) {
  RouterJitter noise;
  if (context.contract.jitter == 0 || !context.pass.trains()) return noise;
  TORCH_CHECK(jitter_fits(context.config), "a model too large for jitter");
  noise.epsilon = static_cast<float>(context.contract.jitter);
  noise.seed = context.pass.settings.seed;
  noise.layer = layer;
  noise.row_tokens = slice.row_tokens;
  noise.span_of = slice.routing.span_of;
  noise.sequence_index = slice.sequence_index;
  return noise;
}

// What the router sees: x, or that with noise.
const at::Tensor& seen_by_router(Backend& backend, const RouterJitter& noise, const at::Tensor& x,
                                 MoeBuffers* buffers) {
  if (noise.epsilon == 0) return x;
  backend.jitter(x, noise, &buffers->jittered);
  return buffers->jittered;
}

// From the gradients of the logits: adds to those of x and of the router's weights.
void logits_backward(Backend& backend, const RouterJitter& noise, const at::Tensor& x,
                     const LayerWeights& weights, MoeBuffers* buffers,
                     const LayerWeights& gradients, const at::Tensor& dx) {
  if (noise.epsilon == 0) {
    backend.add_linear_backward(buffers->d_logits, x, weights.router, dx, gradients.router);
    return;
  }
  const at::Tensor& seen = seen_by_router(backend, noise, x, buffers);
  backend.zeros_like(dx, &buffers->d_jittered);
  backend.add_linear_backward(buffers->d_logits, seen, weights.router, buffers->d_jittered,
                              gradients.router);
  backend.add_jittered(buffers->d_jittered, noise, dx);
}

}  // namespace

void moe_forward(const BlockContext& context, const LayerWeights& weights, const PlacedSlice& slice,
                 int64_t layer, const at::Tensor& x, MoeActivations* kept, MoeBuffers* buffers,
                 const at::Tensor& y) {
  Backend& backend = context.backend;
  const PassOptions& pass = context.pass;
  const Hidden hidden = hidden_of(context, kept, buffers);

  Timed timed(pass.profile, Work::kRouter);
  kept->jitter = router_jitter(context, slice, layer);
  backend.linear(seen_by_router(backend, kept->jitter, x, buffers), weights.router, at::kFloat,
                 &kept->router_input.logits);
  set_router_input(context, weights, slice, layer, &kept->router_input);
  backend.route(kept->router_input, context.contract, &kept->routing);

  timed.switch_to(Work::kExchange);
  if (pass.settings.routed_off) kept->routing.experts.fill_(-1);
  backend.plan(*pass.ep, context.placements[layer], kept->routing, pass.settings.exchange,
               &kept->plan);
  RowsInFlight flight = backend.send_rows(*pass.ep, *kept->plan, x, &kept->arrived);

  timed.switch_to(Work::kExperts);
  backend.feed_forward(weights.always, x, hidden.shared, y);  // while rows are in flight
  timed.switch_to(Work::kExchange);
  flight.wait();
  timed.switch_to(Work::kExperts);
  backend.experts(weights.routed, *kept->plan, {x, kept->arrived}, hidden.routed, &buffers->pairs);
  backend.return_rows(*pass.ep, *kept->plan, buffers->pairs, &timed, y);
  if (!pass.want_contributions) return;
  backend.experts_lengths(*kept->plan, &buffers->pairs);
  backend.return_scalars(*pass.ep, *kept->plan, buffers->pairs, &kept->contributions);
}

void moe_backward(const BlockContext& context, const LayerWeights& weights, const at::Tensor& x,
                  const at::Tensor& dy, const RouterLosses& losses, MoeActivations* kept,
                  MoeBuffers* buffers, const LayerWeights& gradients, at::Tensor* dx) {
  Backend& backend = context.backend;
  Communicator& ep = *context.pass.ep;
  const Plan& plan = *kept->plan;
  const PlanRows rows{x, kept->arrived};
  const Hidden hidden = hidden_of(context, kept, buffers);

  Timed timed(context.pass.profile, Work::kExchange);
  RowsInFlight flight = backend.send_rows(ep, plan, dy, &buffers->d_arrived);
  timed.switch_to(Work::kExperts);
  if (context.pass.settings.recompute == Recompute::kMoe) {
    backend.feed_forward_hidden(weights.always, x, hidden.shared);
    backend.experts_hidden(weights.routed, plan, rows, hidden.routed);
  }
  backend.feed_forward_backward(weights.always, gradients.always, x, dy, hidden.shared, dx);
  timed.switch_to(Work::kExchange);
  flight.wait();
  timed.switch_to(Work::kExperts);
  backend.experts_backward(weights.routed, gradients.routed, context.onto_expert_gradients, plan,
                           rows, hidden.routed, {dy, buffers->d_arrived}, &buffers->pairs);
  backend.return_rows(ep, plan, buffers->pairs, &timed, *dx);
  backend.return_scalars(ep, plan, buffers->pairs, &buffers->slots);

  timed.switch_to(Work::kRouter);
  backend.route_backward(kept->router_input, context.contract, kept->routing, buffers->slots,
                         losses.balance, losses.z, &buffers->d_logits);
  logits_backward(backend, kept->jitter, x, weights, buffers, gradients, *dx);
  give_back(backend, buffers);
}

}  // namespace emo

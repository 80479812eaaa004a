#include "model/moe_layer.h"

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
void set_router_input(const BlockContext& context, const PlacedSlice& slice, int64_t layer,
                      RouterInput* input) {
  const PassSettings& settings = context.pass.settings;
  input->spans = slice.routing;
  input->pool_sizes = slice.pool_sizes[layer];
  input->pool = settings.pool_of(context.contract).of_layer(layer);
  input->top_k = context.config.routed_top_k(layer);
  input->subset = settings.subsets.empty() ? ExpertSubset() : settings.subsets[layer];
  input->labels =
      context.contract.losses_over == LossTokens::kLabelled ? slice.labels : at::Tensor();
}

}  // namespace

void moe_forward(const BlockContext& context, const LayerWeights& weights, const PlacedSlice& slice,
                 int64_t layer, const at::Tensor& x, MoeActivations* kept, MoeBuffers* buffers,
                 const at::Tensor& y) {
  Backend& backend = context.backend;
  const PassOptions& pass = context.pass;
  const Hidden hidden = hidden_of(context, kept, buffers);

  Timed timed(pass.profile, Work::kRouter);
  backend.linear(x, weights.router, at::kFloat, &kept->router_input.logits);
  set_router_input(context, slice, layer, &kept->router_input);
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
  backend.add_linear_backward(buffers->d_logits, x, weights.router, *dx, gradients.router);
  give_back(backend, buffers);
}

}  // namespace emo

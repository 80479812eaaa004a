#include "model/device/backend.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "model/device/attention.h"
#include "model/device/exchange.h"
#include "model/device/experts.h"
#include "model/device/kernels/adamw.h"
#include "model/device/kernels/balance.h"
#include "model/device/kernels/cross_entropy.h"
#include "model/device/kernels/embedding.h"
#include "model/device/kernels/rms_norm.h"
#include "model/device/kernels/rope.h"
#include "model/device/kernels/router_jitter.h"
#include "model/device/limits.h"
#include "model/device/matrix.h"
#include "model/device/router.h"

namespace emo::device {
namespace {

struct DevicePlan : Plan {
  ExchangePlan plan;
};
const ExchangePlan& plan_of(const Plan& plan) { return static_cast<const DevicePlan&>(plan).plan; }

// All rows of a plan: those that arrived, or on one rank the tokens.
const at::Tensor& rows_of(const ExchangePlan& plan, const PlanRows& rows) {
  return plan.local ? rows.tokens : rows.arrived;
}

at::Tensor floats(at::IntArrayRef shape, const at::Tensor& like) {
  return at::empty(shape, like.options().dtype(at::kFloat));
}

// Queries or keys among the columns of S [T, 2 D] or S [T, 3 D].
at::Tensor columns(const at::Tensor& matrix, int64_t part, int64_t D) {
  return matrix.slice(1, part * D, (part + 1) * D);
}

class DeviceBackend : public Backend {
 public:
  DeviceBackend(at::Device device, at::ScalarType type, int64_t head_rows)
      : device_(device), type_(type), head_rows_(head_rows) {}

  at::TensorOptions parameters() const override {
    return at::TensorOptions().dtype(type_).device(device_);
  }
  at::ScalarType stored(Precision) const override { return type_; }
  std::vector<Limit> limits(const ModelConfig& config) const override {
    return limits_of(config, type_, device_.is_cuda());
  }
  bool keeps_memory() const override { return false; }
  ExchangeCounters take_counters() override { return std::exchange(counters_, ExchangeCounters()); }

  void embed(const at::Tensor& tokens, const at::Tensor& table, at::Tensor* x) override {
    *x = at::empty({tokens.size(0), table.size(1)}, table.options());
    device::embed(tokens, table, *x);
  }
  void embed_backward(const at::Tensor& tokens, const at::Tensor& d,
                      const at::Tensor& d_table) override {
    const auto sorted = at::sort(tokens, /*stable=*/true, 0, false);
    device::embed_backward(std::get<0>(sorted), std::get<1>(sorted), d, d_table);
  }

  void rms_norm(const at::Tensor& x, const at::Tensor& w, double epsilon, at::ScalarType,
                Normalised* kept) override {
    kept->y = at::empty_like(x);
    kept->reciprocal = floats({x.size(0)}, x);
    device::rms_norm(x, w, static_cast<float>(epsilon), kept->y, kept->reciprocal);
  }
  void rms_norm_backward(const at::Tensor& x, const at::Tensor& w, const Normalised& kept,
                         const at::Tensor& d_y, const at::Tensor& d,
                         const at::Tensor& dw) override {
    device::rms_norm_backward(x, w, kept.reciprocal, d_y, d, dw);
  }

  void linear(const at::Tensor& x, const at::Tensor& w, at::ScalarType type,
              at::Tensor* y) override {
    TORCH_CHECK(type == at::kFloat || type == x.scalar_type(), "linear: from ", x.scalar_type(),
                " to ", type);
    *y = type == at::kFloat ? linear_fp32(x, w) : device::linear(x, w);
  }
  void add_linear(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& w,
                  at::Tensor* y) override {
    *y = at::addmm(residual, x, w.t());
  }
  void linear_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w,
                       at::ScalarType type, at::Tensor* dx, const at::Tensor& dw) override {
    TORCH_CHECK(type == dy.scalar_type(), "linear_backward: from ", dy.scalar_type(), " to ", type);
    *dx = linear_input_gradient(dy, w);
    add_weight_gradient(dw, dy, x);
  }
  void add_linear_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w,
                           const at::Tensor& dx, const at::Tensor& dw) override {
    dx.add_(linear_input_gradient(dy, w.to(at::kFloat)));
    add_weight_gradient(dw, dy, x.to(at::kFloat));
  }
  void copy(const at::Tensor& from, at::Tensor* to) override { *to = from.clone(); }
  void zeros_like(const at::Tensor& like, at::Tensor* zeros) override {
    *zeros = at::zeros_like(like);
  }
  void gather_rows(const at::Tensor& x, const std::vector<int64_t>& rows, at::Tensor* y) override {
    const at::Tensor numbers =
        at::empty({static_cast<int64_t>(rows.size())}, at::TensorOptions().dtype(at::kLong));
    std::copy(rows.begin(), rows.end(), numbers.mutable_data_ptr<int64_t>());
    *y = x.index_select(0, to_device(numbers, device_));
  }
  const at::Tensor& as_stored(const at::Tensor& d, at::ScalarType, at::Tensor*) override {
    return d;
  }

  void qk_norm(const LayerWeights& weights, double epsilon, const at::Tensor& qkv,
               QkNormKept* kept) override;
  void qk_norm_backward(const LayerWeights& weights, const QkNormKept& kept,
                        const at::Tensor& d_qkv, const LayerWeights& gradients) override;
  void rotate(const RopeTable& table, Rotation rotation, const PlacedSlice& slice, int64_t heads,
              const at::Tensor& qkv) override {
    device::rotate(table, rotation, slice.positions, 2 * heads, qkv.size(1) / 3 / heads, qkv);
  }
  void attention(const PlacedSlice& slice, int64_t heads, const at::Tensor& qkv,
                 AttentionKept* kept) override {
    *kept = device::attention(slice, heads, qkv);
  }
  void attention_backward(const PlacedSlice& slice, int64_t heads, const at::Tensor& qkv,
                          const AttentionKept& kept, const at::Tensor& d_out,
                          at::Tensor* d_qkv) override {
    *d_qkv = device::attention_backward(slice, heads, qkv, kept, d_out);
  }
  CachedTokens cached_tokens(const Slice& slice, const KeyValueCache& cache) override {
    return emo::cached_tokens(slice, cache, device_);
  }
  void attention_with_cache(const PlacedSlice& slice, int64_t heads, const at::Tensor& qkv,
                            KeyValueCache* cache, int64_t layer, AttentionKept* kept) override {
    kept->out = device::attention_with_cache(slice, heads, qkv, cache->layers[layer]);
  }

  void jitter(const at::Tensor& x, const RouterJitter& noise, at::Tensor* y) override {
    *y = at::empty_like(x);
    device::jitter(x, noise, *y);
  }
  void add_jittered(const at::Tensor& d, const RouterJitter& noise, const at::Tensor& dx) override {
    device::add_jittered(d, noise, dx);
  }
  void route(const RouterInput& input, const RoutingContract& contract, Routing* routing) override {
    *routing = device::route(input, contract);
  }
  void route_backward(const RouterInput& input, const RoutingContract& contract,
                      const Routing& routing, const at::Tensor& d_weights,
                      const at::Tensor& balance, float z, at::Tensor* d_logits) override {
    *d_logits = device::route_backward(input, contract, routing, d_weights, balance, z);
  }

  void plan(Communicator& ep, const LayerPlacement& where, const Routing& routing,
            ExchangeMode mode, std::unique_ptr<Plan>* plan) override {
    TORCH_CHECK(mode == ExchangeMode::kOncePerRank,
                "a device sends a token once to each rank, not once for each expert");
    auto made = std::make_unique<DevicePlan>();
    made->plan = plan_exchange(ep, where, routing.experts, routing.weights, &counters_);
    *plan = std::move(made);
  }
  RowsInFlight send_rows(Communicator& ep, const Plan& plan, const at::Tensor& tokens,
                         at::Tensor* arrived) override {
    return device::send_rows(ep, plan_of(plan), tokens, arrived, &counters_);
  }
  void return_rows(Communicator& ep, const Plan& plan, const PairResults& pairs, Timed* timed,
                   const at::Tensor& y) override {
    const at::Tensor rows = pairs_to_rows(plan_of(plan), pairs.rows);
    timed->switch_to(Work::kExchange);
    device::return_rows(ep, plan_of(plan), rows, y, &counters_);
  }
  void return_scalars(Communicator& ep, const Plan& plan, const PairResults& pairs,
                      at::Tensor* slots) override {
    *slots = return_slots(ep, plan_of(plan), pairs.scalars, &counters_);
  }

  void experts(const FeedForwardWeights& weights, const Plan& plan, const PlanRows& rows,
               at::Tensor* hidden, PairResults* results) override {
    const ExchangePlan& p = plan_of(plan);
    results->rows = apply_experts(weights, p, rows_of(p, rows), hidden);
  }
  void experts_hidden(const FeedForwardWeights& weights, const Plan& plan, const PlanRows& rows,
                      at::Tensor* hidden) override {
    *hidden = hidden_pairs(weights, plan_of(plan), rows_of(plan_of(plan), rows));
  }
  void experts_lengths(const Plan& plan, PairResults* results) override {
    results->scalars = slot_lengths(plan_of(plan), results->rows);
  }
  void experts_backward(const FeedForwardWeights& weights, const FeedForwardWeights& gradients,
                        bool onto, const Plan& plan, const PlanRows& rows, at::Tensor* hidden,
                        const PlanRows& d_out, PairResults* results) override {
    const ExchangePlan& p = plan_of(plan);
    *results = apply_experts_backward(weights, gradients, onto, p, rows_of(p, rows), *hidden,
                                      rows_of(p, d_out));
  }
  void feed_forward(const FeedForwards& weights, const at::Tensor& x,
                    std::vector<at::Tensor>* hidden, const at::Tensor& y) override {
    *hidden = always_forward(weights, x, y);
  }
  void feed_forward_hidden(const FeedForwards& weights, const at::Tensor& x,
                           std::vector<at::Tensor>* hidden) override {
    *hidden = hidden_rows(weights, x);
  }
  void feed_forward_backward(const FeedForwards& weights, const FeedForwards& gradients,
                             const at::Tensor& x, const at::Tensor& dy,
                             std::vector<at::Tensor>* hidden, at::Tensor* dx) override {
    *dx = always_backward(weights, gradients, x, *hidden, dy);
  }

  void head_loss(const at::Tensor& x, const at::Tensor& labels, const at::Tensor& w, float scale,
                 float z_weight, at::Tensor* dx, const at::Tensor& dw,
                 const at::Tensor& sums) override;
  at::Tensor head_losses(const at::Tensor& x, const at::Tensor& labels,
                         const at::Tensor& w) override;
  void balance_gradient(const at::Tensor& counts, const at::Tensor& tokens, int64_t top_k,
                        double divisor, at::Tensor* gradient) override {
    *gradient = floats({counts.size(0)}, counts);
    score_gradient(counts, tokens, top_k, divisor, *gradient);
  }
  void document_balance_gradient(const Routing& routing, double divisor,
                                 at::Tensor* gradient) override {
    *gradient = floats(routing.document_counts.sizes(), routing.document_counts);
    document_score_gradient(routing.document_counts, routing.pool_sizes, routing.experts.size(1),
                            divisor, *gradient);
  }
  void add_router_sums(const Routing& routing, const RoutingContract& contract,
                       const at::Tensor& balance, const at::Tensor& z_labels,
                       const at::Tensor& sums) override {
    const at::Tensor& scores = balance.dim() == 2 ? routing.document_score_sum : routing.score_sum;
    add_layer_sums({balance, scores, routing.counts, routing.z_logsumexp(contract), z_labels,
                    routing.token_entropy, routing.document_entropy, routing.pool_sizes},
                   sums);
  }

  at::Tensor sum_of_squares(const std::vector<at::Tensor>& parts) override {
    const auto options = at::TensorOptions().dtype(at::kDouble).device(device_);
    std::vector<at::Tensor> partials = {at::zeros({1}, options)};
    for (const at::Tensor& part : parts) {
      partials.push_back(at::empty({(part.numel() + kSquaresBlock - 1) / kSquaresBlock}, options));
      block_squares(part, partials.back());
    }
    return at::sum(at::cat(partials)).view({1});
  }
  void clip_control(const at::Tensor& sums, const at::Tensor& squares, double limit,
                    at::Tensor* control) override {
    *control = floats({2}, sums);
    device::clip_control(sums, squares, limit, *control);
  }
  void adamw(const AdamWFactors& factors, const at::Tensor& control, const at::Tensor& gradient,
             const at::Tensor& master, const at::Tensor& m, const at::Tensor& v,
             const at::Tensor& parameter) override {
    device::adamw(factors, control, gradient, master, m, v, parameter);
  }

 private:
  const at::Device device_;
  const at::ScalarType type_;
  const int64_t head_rows_;
  ExchangeCounters counters_;
};

void DeviceBackend::qk_norm(const LayerWeights& weights, double epsilon, const at::Tensor& qkv,
                            QkNormKept* kept) {
  const int64_t D = qkv.size(1) / 3;
  kept->raw = qkv.slice(1, 0, 2 * D).clone(at::MemoryFormat::Contiguous);
  kept->reciprocal = floats({2, qkv.size(0)}, qkv);
  const auto normalise = [&](int64_t part, const at::Tensor& w) {
    device::rms_norm(columns(kept->raw, part, D), w, static_cast<float>(epsilon),
                     columns(qkv, part, D), kept->reciprocal[part]);
  };
  normalise(0, weights.q_norm);
  normalise(1, weights.k_norm);
}

void DeviceBackend::qk_norm_backward(const LayerWeights& weights, const QkNormKept& kept,
                                     const at::Tensor& d_qkv, const LayerWeights& gradients) {
  const int64_t D = d_qkv.size(1) / 3;
  const at::Tensor d_raw = at::zeros_like(kept.raw);
  const auto add_part = [&](int64_t part, const at::Tensor& w, const at::Tensor& dw) {
    device::rms_norm_backward(columns(kept.raw, part, D), w, kept.reciprocal[part],
                              columns(d_qkv, part, D), columns(d_raw, part, D), dw);
  };
  add_part(0, weights.q_norm, gradients.q_norm);
  add_part(1, weights.k_norm, gradients.k_norm);
  d_qkv.slice(1, 0, 2 * D).copy_(d_raw);
}

void DeviceBackend::head_loss(const at::Tensor& x, const at::Tensor& labels, const at::Tensor& w,
                              float scale, float z_weight, at::Tensor* dx, const at::Tensor& dw,
                              const at::Tensor& sums) {
  const int64_t T = x.size(0);
  const at::Tensor losses = floats({T}, x);
  const at::Tensor z_squares = floats({T}, x);
  *dx = at::empty_like(x);
  for (int64_t begin = 0; begin < T; begin += head_rows_) {
    const int64_t end = std::min(T, begin + head_rows_);
    const at::Tensor rows = x.slice(0, begin, end);
    const at::Tensor logits = device::linear(rows, w);
    cross_entropy_and_gradient(logits, labels.slice(0, begin, end), scale, z_weight,
                               losses.slice(0, begin, end), z_squares.slice(0, begin, end));
    dx->slice(0, begin, end).copy_(linear_input_gradient(logits, w));
    add_weight_gradient(dw, logits, rows);
  }
  add_head_sums(losses, z_squares, labels, sums);
}

at::Tensor DeviceBackend::head_losses(const at::Tensor& x, const at::Tensor& labels,
                                      const at::Tensor& w) {
  const int64_t n = x.size(0);
  const at::Tensor there = to_device(labels, device_);
  const at::Tensor losses = floats({n}, x);
  const at::Tensor z_squares = floats({n}, x);
  for (int64_t begin = 0; begin < n; begin += head_rows_) {
    const int64_t end = std::min(n, begin + head_rows_);
    cross_entropy_and_gradient(device::linear(x.slice(0, begin, end), w),
                               there.slice(0, begin, end), /*scale=*/1, /*z_weight=*/0,
                               losses.slice(0, begin, end), z_squares.slice(0, begin, end));
  }
  return losses.cpu();
}

}  // namespace

std::shared_ptr<Backend> make_backend(at::Device device, at::ScalarType type, int64_t head_rows) {
  return std::make_shared<DeviceBackend>(device, type, head_rows);
}

}  // namespace emo::device

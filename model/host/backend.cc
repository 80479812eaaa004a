#include "model/host/backend.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include "model/host/adamw.h"
#include "model/host/attention.h"
#include "model/host/balance.h"
#include "model/host/cached_spans.h"
#include "model/host/embedding.h"
#include "model/host/experts.h"
#include "model/host/feed_forward.h"
#include "model/host/linear.h"
#include "model/host/lm_head.h"
#include "model/host/pair_sums.h"
#include "model/host/qk_norm.h"
#include "model/host/rms_norm.h"
#include "model/host/rope.h"
#include "model/host/router.h"
#include "model/host/router_jitter.h"
#include "model/host/scratch.h"
#include "model/host/stored.h"
#include "parallel/buffers.h"

namespace emo {
namespace {

float* data(const at::Tensor& tensor) { return tensor.mutable_data_ptr<float>(); }
const int32_t* ints(const at::Tensor& tensor) { return tensor.const_data_ptr<int32_t>(); }

template <typename Stored>
Stored* stored_data(const at::Tensor& tensor) {
  return tensor.mutable_data_ptr<Stored>();
}

// A matrix of rows one behind another.
template <typename Stored>
BasicMatrixView<Stored> matrix(const at::Tensor& tensor) {
  return {tensor.mutable_data_ptr<Stored>(), tensor.size(1)};
}

FeedForwardView view_of(const FeedForwardWeights& weights) {
  return {data(weights.gate_up), data(weights.down), weights.down.size(0), weights.down.size(1)};
}

// Of experts that stand in one tensor.
std::vector<FeedForwardView> views_of(const FeedForwardWeights& weights) {
  std::vector<FeedForwardView> views(weights.down.size(0));
  for (size_t e = 0; e < views.size(); ++e) {
    const auto at = static_cast<int64_t>(e);
    views[e] = {data(weights.gate_up) + at * weights.gate_up.stride(0),
                data(weights.down) + at * weights.down.stride(0), weights.down.size(1),
                weights.down.size(2)};
  }
  return views;
}

LmHeadWeights head_of(const at::Tensor& w) { return {data(w), w.size(0), w.size(1)}; }

AttentionShape attention_shape(const PlacedSlice& slice, int64_t heads, const at::Tensor& qkv) {
  return {heads, qkv.size(1) / 3 / heads, ints(slice.attention_ends),
          slice.attention_ends.numel() - 1};
}

struct HostPlan : Plan {
  int64_t tokens = 0, top_k = 0;  // T, K
  ExchangePlan plan;
};
const ExchangePlan& plan_of(const Plan& plan) { return static_cast<const HostPlan&>(plan).plan; }

class HostBackend : public Backend {
 public:
  at::TensorOptions parameters() const override { return at::kFloat; }
  at::ScalarType stored(Precision precision) const override {
    return precision == Precision::kBf16 ? at::kBFloat16 : at::kFloat;
  }
  std::vector<Limit> limits(const ModelConfig&) const override { return {}; }
  bool keeps_memory() const override { return true; }
  ExchangeCounters take_counters() override {
    return std::exchange(exchange_.counters, ExchangeCounters());
  }

  void embed(const at::Tensor& tokens, const at::Tensor& table, at::Tensor* x) override {
    const int64_t T = tokens.numel();
    const int64_t D = table.size(1);
    emo::embed(T, table.size(0), D, ints(tokens), data(table), data(shape_buffer(x, {T, D})));
  }
  void embed_backward(const at::Tensor& tokens, const at::Tensor& d,
                      const at::Tensor& d_table) override {
    emo::embed_backward(d.size(0), d.size(1), ints(tokens), data(d), data(d_table));
  }

  void rms_norm(const at::Tensor& x, const at::Tensor& w, double epsilon, at::ScalarType stored,
                Normalised* kept) override {
    const int64_t T = x.size(0);
    const int64_t D = x.size(1);
    with_stored(stored, [&](auto element) {
      emo::rms_norm(T, D, data(x), data(w), static_cast<float>(epsilon),
                    shape_stored<decltype(element)>(&kept->y, {T, D}),
                    data(shape_buffer(&kept->reciprocal, {T})));
    });
  }
  void rms_norm_backward(const at::Tensor& x, const at::Tensor& w, const Normalised& kept,
                         const at::Tensor& d_y, const at::Tensor& d,
                         const at::Tensor& dw) override {
    emo::rms_norm_backward(x.size(0), x.size(1), data(x), data(w), data(kept.reciprocal), data(d_y),
                           data(d), data(dw), &partial_);
  }

  void linear(const at::Tensor& x, const at::Tensor& w, at::ScalarType type,
              at::Tensor* y) override {
    const int64_t n = x.size(0);
    const int64_t in = x.size(1);
    const int64_t out = w.size(0);
    shape_buffer(y, {n, out}, type);
    with_stored(x.scalar_type(), [&](auto element) {
      using Stored = decltype(element);
      if (type == at::kFloat) {
        emo::linear(n, out, in, matrix<Stored>(x), matrix<float>(w), 0, matrix<float>(*y));
      } else if constexpr (std::is_same_v<Stored, Bf16>) {
        emo::linear(n, out, in, matrix<Bf16>(x), matrix<float>(w), 0, matrix<Bf16>(*y));
      } else {
        TORCH_CHECK(false, "linear: from fp32 to ", type);
      }
    });
  }
  void add_linear(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& w,
                  at::Tensor* y) override {
    copy(residual, y);
    with_stored(x.scalar_type(), [&](auto element) {
      emo::linear(x.size(0), w.size(0), x.size(1), matrix<decltype(element)>(x), matrix<float>(w),
                  1, matrix<float>(*y));
    });
  }
  void linear_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w,
                       at::ScalarType type, at::Tensor* dx, const at::Tensor& dw) override {
    const int64_t n = x.size(0);
    const int64_t in = x.size(1);
    const int64_t out = w.size(0);
    shape_buffer(dx, {n, in}, type);
    with_stored(x.scalar_type(), [&](auto element) {
      using Stored = decltype(element);
      if (type == at::kFloat) {
        linear_input_gradient(n, out, in, matrix<Stored>(dy), matrix<float>(w), 0,
                              matrix<float>(*dx));
      } else if constexpr (std::is_same_v<Stored, Bf16>) {
        linear_input_gradient(n, out, in, matrix<Bf16>(dy), matrix<float>(w), 0, matrix<Bf16>(*dx));
      } else {
        TORCH_CHECK(false, "linear_backward: from fp32 to ", type);
      }
      linear_weight_gradient(n, out, in, matrix<Stored>(dy), matrix<Stored>(x), 1,
                             matrix<float>(dw));
    });
  }
  void add_linear_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w,
                           const at::Tensor& dx, const at::Tensor& dw) override {
    const int64_t n = x.size(0);
    const int64_t in = x.size(1);
    const int64_t out = w.size(0);
    with_stored(x.scalar_type(), [&](auto element) {
      using Stored = decltype(element);
      const auto rounded = matrix<Stored>(emo::as_stored<Stored>(dy, &rounded_));
      linear_input_gradient(n, out, in, rounded, matrix<float>(w), 1, matrix<float>(dx));
      linear_weight_gradient(n, out, in, rounded, matrix<Stored>(x), 1, matrix<float>(dw));
    });
  }
  void copy(const at::Tensor& from, at::Tensor* to) override {
    copy_buffer(from, shape_buffer(to, from.sizes()));
  }
  void zeros_like(const at::Tensor& like, at::Tensor* zeros) override {
    zero_buffer(shape_buffer(zeros, like.sizes()));
  }
  void gather_rows(const at::Tensor& x, const std::vector<int64_t>& rows, at::Tensor* y) override {
    const int64_t D = x.size(1);
    float* to = data(shape_buffer(y, {static_cast<int64_t>(rows.size()), D}));
    for (const int64_t row : rows) {
      std::memcpy(to, data(x) + row * D, D * sizeof(float));
      to += D;
    }
  }
  const at::Tensor& as_stored(const at::Tensor& d, at::ScalarType stored,
                              at::Tensor* buffer) override {
    return stored == at::kBFloat16 ? emo::as_stored<Bf16>(d, buffer) : d;
  }

  void qk_norm(const LayerWeights& weights, double epsilon, const at::Tensor& qkv,
               QkNormKept* kept) override {
    const int64_t T = qkv.size(0);
    const int64_t D = qkv.size(1) / 3;
    with_stored(qkv.scalar_type(), [&](auto element) {
      using Stored = decltype(element);
      emo::qk_norm(T, D, {data(weights.q_norm), data(weights.k_norm)}, static_cast<float>(epsilon),
                   stored_data<Stored>(qkv), shape_stored<Stored>(&kept->raw, {T, 2 * D}),
                   data(shape_buffer(&kept->reciprocal, {T, 2})));
    });
  }
  void qk_norm_backward(const LayerWeights& weights, const QkNormKept& kept,
                        const at::Tensor& d_qkv, const LayerWeights& gradients) override {
    with_stored(d_qkv.scalar_type(), [&](auto element) {
      using Stored = decltype(element);
      emo::qk_norm_backward(
          d_qkv.size(0), d_qkv.size(1) / 3, {data(weights.q_norm), data(weights.k_norm)},
          stored_data<Stored>(kept.raw), data(kept.reciprocal), stored_data<Stored>(d_qkv),
          {data(gradients.q_norm), data(gradients.k_norm)}, &partial_);
    });
  }
  void rotate(const RopeTable& table, Rotation rotation, const PlacedSlice& slice, int64_t heads,
              const at::Tensor& qkv) override {
    const int64_t width = qkv.size(1);
    with_stored(qkv.scalar_type(), [&](auto element) {
      emo::rotate(table, rotation, qkv.size(0), ints(slice.positions), 2 * heads, width / 3 / heads,
                  width, stored_data<decltype(element)>(qkv));
    });
  }
  void attention(const PlacedSlice& slice, int64_t heads, const at::Tensor& qkv,
                 AttentionKept* kept) override {
    attend(attention_shape(slice, heads, qkv), qkv, kept);
  }
  void attention_backward(const PlacedSlice& slice, int64_t heads, const at::Tensor& qkv,
                          const AttentionKept& kept, const at::Tensor& d_out,
                          at::Tensor* d_qkv) override {
    with_stored(qkv.scalar_type(), [&](auto element) {
      using Stored = decltype(element);
      emo::attention_backward(attention_shape(slice, heads, qkv), stored_data<Stored>(qkv),
                              stored_data<Stored>(kept.out), data(kept.logsumexp),
                              stored_data<Stored>(d_out), shape_stored<Stored>(d_qkv, qkv.sizes()),
                              &scratch_);
    });
  }
  CachedTokens cached_tokens(const Slice&, const KeyValueCache&) override { return {}; }
  void attention_with_cache(const PlacedSlice& slice, int64_t heads, const at::Tensor& qkv,
                            KeyValueCache* cache, int64_t layer, AttentionKept* kept) override {
    TORCH_CHECK(qkv.scalar_type() == at::kFloat, "decoding on the host is in fp32");
    AttentionShape shape = attention_shape(slice, heads, qkv);
    const std::vector<CachedSpan> cached = append(cache, layer, shape.span_ends, data(qkv));
    shape.cached = cached.data();
    attend(shape, qkv, kept);
  }

  void jitter(const at::Tensor& x, const RouterJitter& noise, at::Tensor* y) override {
    with_stored(x.scalar_type(), [&](auto element) {
      using Stored = decltype(element);
      emo::jitter<Stored>(x.size(0), x.size(1), stored_data<Stored>(x), noise,
                          shape_stored<Stored>(y, x.sizes()));
    });
  }
  void add_jittered(const at::Tensor& d, const RouterJitter& noise, const at::Tensor& dx) override {
    emo::add_jittered(d.size(0), d.size(1), data(d), noise, data(dx));
  }
  void route(const RouterInput& input, const RoutingContract& contract, Routing* routing) override {
    emo::route(input, contract, routing);
  }
  void route_backward(const RouterInput& input, const RoutingContract& contract,
                      const Routing& routing, const at::Tensor& d_weights,
                      const at::Tensor& balance, float z, at::Tensor* d_logits) override {
    emo::route_backward(input, contract, routing, d_weights, balance, z, d_logits);
  }

  void plan(Communicator& ep, const LayerPlacement& where, const Routing& routing,
            ExchangeMode mode, std::unique_ptr<Plan>* plan) override {
    if (*plan == nullptr) *plan = std::make_unique<HostPlan>();
    auto& made = static_cast<HostPlan&>(**plan);
    made.tokens = routing.experts.size(0);
    made.top_k = routing.experts.size(1);
    plan_exchange(ep, where.placement, routing.experts, routing.weights, mode, &made.plan,
                  &exchange_);
  }
  RowsInFlight send_rows(Communicator& ep, const Plan& plan, const at::Tensor& tokens,
                         at::Tensor* arrived) override {
    return emo::send_rows(ep, plan_of(plan), tokens, arrived, &exchange_);
  }
  void return_rows(Communicator& ep, const Plan& plan, const PairResults& pairs, Timed* timed,
                   const at::Tensor& y) override {
    // Own sums while the others travel.
    const ExchangePlan& p = plan_of(plan);
    with_stored(pairs.rows.scalar_type(), [&](auto element) {
      using Stored = decltype(element);
      shape_stored<Stored>(&leaving_, {p.arrived_rows(), y.size(1)});
      sum_arrived_rows<Stored>(p, pairs.rows, leaving_);
      timed->switch_to(Work::kExchange);
      RowsInFlight flight = emo::return_rows(ep, p, leaving_, &exchange_);
      timed->switch_to(Work::kExperts);
      add_own_rows<Stored>(p, pairs.rows, y);
      timed->switch_to(Work::kExchange);
      flight.wait();
      add_returned(p, y, exchange_);
    });
  }
  void return_scalars(Communicator& ep, const Plan& plan, const PairResults& pairs,
                      at::Tensor* slots) override {
    const auto& p = static_cast<const HostPlan&>(plan);
    zero_buffer(shape_buffer(slots, {p.tokens, p.top_k}));
    return_pairs(ep, p.plan, pairs.scalars, *slots, &exchange_);
  }

  void experts(const FeedForwardWeights& weights, const Plan& plan, const PlanRows& rows,
               at::Tensor* hidden, PairResults* results) override {
    with_stored(rows.tokens.scalar_type(), [&](auto element) {
      apply_experts<decltype(element)>(views_of(weights), plan_of(plan), rows, hidden, results,
                                       &scratch_);
    });
  }
  void experts_hidden(const FeedForwardWeights& weights, const Plan& plan, const PlanRows& rows,
                      at::Tensor* hidden) override {
    with_stored(rows.tokens.scalar_type(), [&](auto element) {
      apply_experts_hidden<decltype(element)>(views_of(weights), plan_of(plan), rows, hidden,
                                              &scratch_);
    });
  }
  void experts_lengths(const Plan& plan, PairResults* results) override {
    with_stored(results->rows.scalar_type(), [&](auto element) {
      pair_lengths<decltype(element)>(plan_of(plan), results->rows.size(1), results);
    });
  }
  void experts_backward(const FeedForwardWeights& weights, const FeedForwardWeights& gradients,
                        bool onto, const Plan& plan, const PlanRows& rows, at::Tensor* hidden,
                        const PlanRows& d_out, PairResults* results) override {
    with_stored(rows.tokens.scalar_type(), [&](auto element) {
      apply_experts_backward<decltype(element)>(views_of(weights), views_of(gradients), onto,
                                                plan_of(plan), rows, *hidden, d_out, results,
                                                &scratch_);
    });
  }
  void feed_forward(const FeedForwards& weights, const at::Tensor& x,
                    std::vector<at::Tensor>* hidden, const at::Tensor& y) override;
  void feed_forward_hidden(const FeedForwards& weights, const at::Tensor& x,
                           std::vector<at::Tensor>* hidden) override;
  void feed_forward_backward(const FeedForwards& weights, const FeedForwards& gradients,
                             const at::Tensor& x, const at::Tensor& dy,
                             std::vector<at::Tensor>* hidden, at::Tensor* dx) override;

  void head_loss(const at::Tensor& x, const at::Tensor& labels, const at::Tensor& w, float scale,
                 float z_weight, at::Tensor* dx, const at::Tensor& dw,
                 const at::Tensor& sums) override;
  at::Tensor head_losses(const at::Tensor& x, const at::Tensor& labels,
                         const at::Tensor& w) override;
  void balance_gradient(const at::Tensor& counts, const at::Tensor& tokens, int64_t top_k,
                        double divisor, at::Tensor* gradient) override {
    emo::balance_gradient(counts, tokens, top_k, divisor, gradient);
  }
  void document_balance_gradient(const Routing& routing, double divisor,
                                 at::Tensor* gradient) override {
    emo::document_balance_gradient(routing, divisor, gradient);
  }
  void add_router_sums(const Routing& routing, const RoutingContract& contract,
                       const at::Tensor& balance, const at::Tensor& z_labels,
                       const at::Tensor& sums) override {
    emo::add_router_sums(routing, contract, balance, z_labels, sums);
  }

  at::Tensor sum_of_squares(const std::vector<at::Tensor>& parts) override {
    double sum = 0;
    for (const at::Tensor& part : parts) sum += emo::sum_of_squares(part.numel(), data(part));
    return at::empty({1}, at::TensorOptions().dtype(at::kDouble)).fill_(sum);
  }
  void clip_control(const at::Tensor& sums, const at::Tensor& squares, double limit,
                    at::Tensor* control) override;
  void adamw(const AdamWFactors& factors, const at::Tensor& control, const at::Tensor& gradient,
             const at::Tensor& master, const at::Tensor& m, const at::Tensor& v,
             const at::Tensor& parameter) override {
    TORCH_CHECK(!parameter.defined(), "parameters on the host are their own masters");
    if (data(control)[1] == 0) return;
    emo::adamw(factors, data(control)[0], master.numel(), data(gradient), data(master), data(m),
               data(v));
  }

 private:
  void attend(const AttentionShape& shape, const at::Tensor& qkv, AttentionKept* kept) {
    const int64_t T = qkv.size(0);
    with_stored(qkv.scalar_type(), [&](auto element) {
      using Stored = decltype(element);
      emo::attention(shape, stored_data<Stored>(qkv),
                     shape_stored<Stored>(&kept->out, {T, qkv.size(1) / 3}),
                     data(shape_buffer(&kept->logsumexp, {T, shape.heads})), &scratch_);
    });
  }

  Scratch scratch_;
  std::vector<float> partial_;  // of gradients of norms
  ExchangeBuffers exchange_;
  at::Tensor act_, d_act_;  // Stored [T, F] of what every token goes through
  at::Tensor leaving_;      // Stored [R - own_rows, D] sums for other ranks
  at::Tensor rounded_;      // Stored [T, E] gradients of router logits
};

void HostBackend::feed_forward(const FeedForwards& weights, const at::Tensor& x,
                               std::vector<at::Tensor>* hidden, const at::Tensor& y) {
  const int64_t T = x.size(0);
  hidden->resize(weights.size());
  with_stored(x.scalar_type(), [&](auto element) {
    using Stored = decltype(element);
    for (size_t i = 0; i < weights.size(); ++i) {
      const FeedForwardView view = view_of(weights[i]);
      const FeedForwardMemory<Stored> memory{shape_stored<Stored>(&(*hidden)[i], {T, 2 * view.F}),
                                             shape_stored<Stored>(&act_, {T, view.F})};
      emo::feed_forward<Stored>(view, {T, stored_data<Stored>(x)}, memory, 1, data(y));
    }
  });
}

void HostBackend::feed_forward_hidden(const FeedForwards& weights, const at::Tensor& x,
                                      std::vector<at::Tensor>* hidden) {
  const int64_t T = x.size(0);
  hidden->resize(weights.size());
  with_stored(x.scalar_type(), [&](auto element) {
    using Stored = decltype(element);
    for (size_t i = 0; i < weights.size(); ++i) {
      const FeedForwardView view = view_of(weights[i]);
      emo::feed_forward_hidden<Stored>(view, T, stored_data<Stored>(x),
                                       shape_stored<Stored>(&(*hidden)[i], {T, 2 * view.F}));
    }
  });
}

void HostBackend::feed_forward_backward(const FeedForwards& weights, const FeedForwards& gradients,
                                        const at::Tensor& x, const at::Tensor& dy,
                                        std::vector<at::Tensor>* hidden, at::Tensor* dx) {
  const int64_t T = x.size(0);
  shape_buffer(dx, x.sizes());
  if (weights.empty()) zero_buffer(*dx);
  with_stored(x.scalar_type(), [&](auto element) {
    using Stored = decltype(element);
    for (size_t i = 0; i < weights.size(); ++i) {
      const FeedForwardView view = view_of(weights[i]);
      const FeedForwardMemory<Stored> memory{stored_data<Stored>((*hidden)[i]),
                                             shape_stored<Stored>(&act_, {T, view.F}),
                                             shape_stored<Stored>(&d_act_, {T, view.F})};
      emo::feed_forward_backward<Stored>(view, {T, stored_data<Stored>(x)}, stored_data<Stored>(dy),
                                         memory, 1, view_of(gradients[i]), i == 0 ? 0 : 1,
                                         data(*dx), nullptr);
    }
  });
}

void HostBackend::head_loss(const at::Tensor& x, const at::Tensor& labels, const at::Tensor& w,
                            float scale, float z_weight, at::Tensor* dx, const at::Tensor& dw,
                            const at::Tensor& sums) {
  float* dx_data = data(shape_buffer(dx, x.sizes()));
  const LmLoss loss = with_stored(x.scalar_type(), [&](auto element) {
    return lm_loss_and_gradients(head_of(w), head_of(dw), x.size(0),
                                 stored_data<decltype(element)>(x), ints(labels), scale, z_weight,
                                 dx_data, &scratch_);
  });
  auto* sum = sums.mutable_data_ptr<double>();
  sum[0] += loss.cross_entropy;
  sum[1] += loss.z_squares;
  sum[2] += static_cast<double>(loss.labels);
}

at::Tensor HostBackend::head_losses(const at::Tensor& x, const at::Tensor& labels,
                                    const at::Tensor& w) {
  at::Tensor losses = at::empty({x.size(0)}, at::TensorOptions().dtype(at::kFloat));
  lm_loss(head_of(w), x.size(0), data(x), ints(labels), nullptr, data(losses), &scratch_);
  return losses;
}

void HostBackend::clip_control(const at::Tensor& sums, const at::Tensor& squares, double limit,
                               at::Tensor* control) {
  const double norm = std::sqrt(*squares.const_data_ptr<double>());
  const double factor = limit / (norm + 1e-6);
  float* out = data(shape_buffer(control, {2}));
  out[0] = limit > 0 && factor < 1 ? static_cast<float>(factor) : 1.0f;
  out[1] = std::isfinite(*sums.const_data_ptr<double>()) && std::isfinite(norm) ? 1.0f : 0.0f;
}

}  // namespace

std::shared_ptr<Backend> host_backend() { return std::make_shared<HostBackend>(); }

}  // namespace emo

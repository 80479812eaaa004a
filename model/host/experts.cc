#include "model/host/experts.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "model/host/stored.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

// packed[i] = row plan.row_of_pair[begin + i] of `rows`
template <typename Stored>
void gather_rows(const ExchangePlan& plan, int64_t begin, int64_t count, const PlanRows& rows,
                 Stored* packed) {
  const int64_t D = rows.tokens.size(1);
  const auto* tokens = rows.tokens.const_data_ptr<Stored>();
  const auto* arrived = plan.arrived_rows() > 0 ? rows.arrived.const_data_ptr<Stored>() : nullptr;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = plan.row_of_pair[begin + i];
    const Stored* from = row < plan.own_rows ? tokens + plan.token_of_sent_row[row] * D
                                             : arrived + (row - plan.own_rows) * D;
    std::memcpy(packed + i * D, from, D * sizeof(Stored));
  }
}

void check_rows(const ExchangePlan& plan, const PlanRows& rows, int64_t D) {
  TORCH_CHECK(rows.tokens.size(1) == D && rows.tokens.size(0) >= plan.own_tokens() &&
                  rows.arrived.size(0) == plan.arrived_rows() && rows.arrived.size(1) == D,
              "experts of width ", D, ": tokens ", rows.tokens.sizes(), " and rows ",
              rows.arrived.sizes(), " for a plan of ", plan.own_tokens(), " tokens and ",
              plan.arrived_rows(), " rows");
}

// Calls f(e, begin, n, packed) for each expert here that has pairs, as tasks: its pairs are
// [begin, begin + n), and packed [n, D] (slot 0 of the scratch) their rows.
template <typename Stored, typename F>
void for_each_expert(const ExchangePlan& plan, const std::vector<FeedForwardView>& experts,
                     const PlanRows& rows, Scratch* scratch, const F& f) {
  const int64_t D = rows.tokens.size(1);
  check_rows(plan, rows, experts[0].D);
  parallel_tasks(static_cast<int64_t>(experts.size()), [&](int64_t e) {
    const int64_t begin = plan.expert_begin[e];
    const int64_t n = plan.expert_begin[e + 1] - begin;
    if (n == 0) return;
    Stored* packed = scratch->get<Stored>(0, n * D);
    gather_rows(plan, begin, n, rows, packed);
    f(e, begin, n, packed);
  });
}

// The gradients of experts that have no pairs.
void zero_unused(const std::vector<FeedForwardView>& gradients, const ExchangePlan& plan) {
  parallel_tasks(static_cast<int64_t>(gradients.size()), [&](int64_t e) {
    if (plan.expert_begin[e] < plan.expert_begin[e + 1]) return;
    std::fill_n(gradients[e].gate_up, 2 * gradients[e].F * gradients[e].D, 0.0f);
    std::fill_n(gradients[e].down, gradients[e].D * gradients[e].F, 0.0f);
  });
}

}  // namespace

template <typename Stored>
void apply_experts(const std::vector<FeedForwardView>& experts, const ExchangePlan& plan,
                   const PlanRows& rows, at::Tensor* hidden, PairResults* results,
                   Scratch* scratch) {
  const int64_t D = rows.tokens.size(1);
  Stored* out = shape_stored<Stored>(&results->rows, {plan.pairs, D});
  if (experts.empty()) return;
  const int64_t F = experts[0].F;
  Stored* h = shape_stored<Stored>(hidden, {plan.pairs, 2 * F});
  for_each_expert<Stored>(
      plan, experts, rows, scratch, [&](int64_t e, int64_t begin, int64_t n, Stored* packed) {
        feed_forward<Stored>(experts[e], {n, packed, plan.weight_of_pair.data() + begin},
                             {h + begin * 2 * F, scratch->get<Stored>(1, n * F)}, 0,
                             out + begin * D);
      });
}

template <typename Stored>
void pair_lengths(const ExchangePlan& plan, int64_t D, PairResults* results) {
  float* lengths = shape_buffer(&results->scalars, {plan.pairs}).mutable_data_ptr<float>();
  const auto* rows = plan.pairs > 0 ? results->rows.const_data_ptr<Stored>() : nullptr;
  parallel_for(plan.pairs, 64, [&](int64_t begin, int64_t end) {
    for (int64_t pair = begin; pair < end; ++pair) {
      double squares = 0;
      for (int64_t d = 0; d < D; ++d) {
        const double value = widen(rows[pair * D + d]);
        squares += value * value;
      }
      lengths[pair] = static_cast<float>(std::sqrt(squares));
    }
  });
}

template <typename Stored>
void apply_experts_hidden(const std::vector<FeedForwardView>& experts, const ExchangePlan& plan,
                          const PlanRows& rows, at::Tensor* hidden, Scratch* scratch) {
  if (experts.empty()) return;
  const int64_t F = experts[0].F;
  Stored* h = shape_stored<Stored>(hidden, {plan.pairs, 2 * F});
  for_each_expert<Stored>(plan, experts, rows, scratch,
                          [&](int64_t e, int64_t begin, int64_t n, Stored* packed) {
                            feed_forward_hidden(experts[e], n, packed, h + begin * 2 * F);
                          });
}

template <typename Stored>
void apply_experts_backward(const std::vector<FeedForwardView>& experts,
                            const std::vector<FeedForwardView>& gradients, bool onto,
                            const ExchangePlan& plan, const PlanRows& rows,
                            const at::Tensor& hidden, const PlanRows& d_out, PairResults* results,
                            Scratch* scratch) {
  const int64_t D = rows.tokens.size(1);
  float* d_weights = shape_buffer(&results->scalars, {plan.pairs}).mutable_data_ptr<float>();
  Stored* d_pairs = shape_stored<Stored>(&results->rows, {plan.pairs, D});
  if (experts.empty()) return;
  const int64_t F = experts[0].F;
  check_rows(plan, d_out, experts[0].D);
  Stored* h = hidden.mutable_data_ptr<Stored>();
  if (!onto) zero_unused(gradients, plan);
  for_each_expert<Stored>(
      plan, experts, rows, scratch, [&](int64_t e, int64_t begin, int64_t n, Stored* packed) {
        Stored* packed_dy = scratch->get<Stored>(1, n * D);
        Stored* act = scratch->get<Stored>(2, n * F);
        Stored* d_act = scratch->get<Stored>(3, n * F);
        gather_rows(plan, begin, n, d_out, packed_dy);
        feed_forward_backward<Stored>(experts[e], {n, packed, plan.weight_of_pair.data() + begin},
                                      packed_dy, {h + begin * 2 * F, act, d_act}, onto ? 1 : 0,
                                      gradients[e], 0, d_pairs + begin * D, d_weights + begin);
      });
}

template void apply_experts<float>(const std::vector<FeedForwardView>&, const ExchangePlan&,
                                   const PlanRows&, at::Tensor*, PairResults*, Scratch*);
template void pair_lengths<float>(const ExchangePlan&, int64_t, PairResults*);
template void apply_experts_hidden<float>(const std::vector<FeedForwardView>&, const ExchangePlan&,
                                          const PlanRows&, at::Tensor*, Scratch*);
template void apply_experts_backward<float>(const std::vector<FeedForwardView>&,
                                            const std::vector<FeedForwardView>&, bool,
                                            const ExchangePlan&, const PlanRows&, const at::Tensor&,
                                            const PlanRows&, PairResults*, Scratch*);
template void apply_experts<Bf16>(const std::vector<FeedForwardView>&, const ExchangePlan&,
                                  const PlanRows&, at::Tensor*, PairResults*, Scratch*);
template void pair_lengths<Bf16>(const ExchangePlan&, int64_t, PairResults*);
template void apply_experts_hidden<Bf16>(const std::vector<FeedForwardView>&, const ExchangePlan&,
                                         const PlanRows&, at::Tensor*, Scratch*);
template void apply_experts_backward<Bf16>(const std::vector<FeedForwardView>&,
                                           const std::vector<FeedForwardView>&, bool,
                                           const ExchangePlan&, const PlanRows&, const at::Tensor&,
                                           const PlanRows&, PairResults*, Scratch*);

}  // namespace emo

#include "model/experts.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "model/simd.h"
#include "model/stored.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

// packed[i] = rows[plan.row_of_pair[begin + i]]
template <typename E>
void gather_rows(const ExchangePlan& plan, int64_t begin, int64_t count, int64_t D, const E* rows,
                 E* packed) {
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(packed + i * D, rows + plan.row_of_pair[begin + i] * D, D * sizeof(E));
  }
}

// to[D] = the sum of kPairs rows of D, in their order: their entries meet in a register.
template <int kPairs, typename E>
__attribute__((always_inline)) inline void sum_rows(int64_t D, const E* const* from, E* to) {
#pragma omp simd
  for (int64_t d = 0; d < D; ++d) {
    float sum = widen(from[0][d]);
#pragma GCC unroll 8
    for (int p = 1; p < kPairs; ++p) sum += widen(from[p][d]);
    to[d] = narrow<E>(sum);
  }
}

// The same for any number of rows.
template <typename E>
__attribute__((always_inline)) inline void sum_rows(int64_t D, const E* const* from, int64_t count,
                                                    E* to) {
  for (int64_t d = 0; d < D; ++d) {
    float sum = 0;
    for (int64_t p = 0; p < count; ++p) sum += widen(from[p][d]);
    to[d] = narrow<E>(sum);
  }
}

template <typename E>
EMO_SIMD void sum_pairs(int64_t begin, int64_t end, int64_t D, const int32_t* first_pair,
                        const int32_t* pairs, const E* pair_rows, const E** from, E* rows) {
  for (int64_t r = begin; r < end; ++r) {
    const int64_t count = first_pair[r + 1] - first_pair[r];
    for (int64_t p = 0; p < count; ++p) from[p] = pair_rows + pairs[first_pair[r] + p] * D;
    E* to = rows + r * D;
    switch (count) {
      case 1:
        sum_rows<1>(D, from, to);
        break;
      case 2:
        sum_rows<2>(D, from, to);
        break;
      case 3:
        sum_rows<3>(D, from, to);
        break;
      case 4:
        sum_rows<4>(D, from, to);
        break;
      case 5:
        sum_rows<5>(D, from, to);
        break;
      case 6:
        sum_rows<6>(D, from, to);
        break;
      case 7:
        sum_rows<7>(D, from, to);
        break;
      case 8:
        sum_rows<8>(D, from, to);
        break;
      default:
        sum_rows(D, from, count, to);
    }
  }
}

// rows[r] = sum of pair_rows over the pairs of r, in a fixed order
template <typename E>
void combine_pairs(const ExchangePlan& plan, int64_t D, const E* pair_rows, E* rows) {
  parallel_for(plan.rows, 64, [&](int64_t begin, int64_t end) {
    int64_t most = 0;
    for (int64_t r = begin; r < end; ++r) {
      most = std::max<int64_t>(most, plan.first_pair_of_row[r + 1] - plan.first_pair_of_row[r]);
    }
    std::vector<const E*> from(most);
    sum_pairs(begin, end, D, plan.first_pair_of_row.data(), plan.pair_of_row.data(), pair_rows,
              from.data(), rows);
  });
}

// Calls f(e, begin, n, packed) for each expert here that has pairs, as tasks: its pairs are
// [begin, begin + n), and packed [n, D] (slot 0 of the scratch) their rows.
template <typename E, typename F>
void for_each_expert(const ExchangePlan& plan, int64_t experts, const at::Tensor& rows,
                     Scratch* scratch, const F& f) {
  const int64_t D = rows.size(1);
  const auto* x = rows.const_data_ptr<E>();
  parallel_tasks(experts, [&](int64_t e) {
    const int64_t begin = plan.expert_begin[e];
    const int64_t n = plan.expert_begin[e + 1] - begin;
    if (n == 0) return;
    E* packed = scratch->get<E>(0, n * D);
    gather_rows(plan, begin, n, D, x, packed);
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

template <typename E>
void apply_experts(const std::vector<FeedForwardView>& experts, const ExchangePlan& plan,
                   const at::Tensor& rows, at::Tensor* hidden, const at::Tensor& out,
                   ExpertBuffers* buffers, Scratch* scratch) {
  if (experts.empty()) return;
  const int64_t D = experts[0].D;
  const int64_t F = experts[0].F;
  TORCH_CHECK(rows.size(0) == plan.rows && rows.size(1) == D && out.sizes() == rows.sizes(),
              "experts: rows ", rows.sizes(), " for a plan of ", plan.rows, ", out ", out.sizes());
  E* h = shape_stored<E>(hidden, {plan.pairs, 2 * F});
  E* results = shape_stored<E>(&buffers->pair_rows, {plan.pairs, D});
  const auto count = static_cast<int64_t>(experts.size());
  for_each_expert<E>(
      plan, count, rows, scratch, [&](int64_t e, int64_t begin, int64_t n, E* packed) {
        feed_forward(experts[e], n, packed, plan.weight_of_pair.data() + begin, h + begin * 2 * F,
                     scratch->get<E>(1, n * F), 0, results + begin * D);
      });
  combine_pairs(plan, D, results, out.mutable_data_ptr<E>());
}

template <typename E>
void pair_lengths(const ExchangePlan& plan, int64_t D, ExpertBuffers* buffers) {
  float* lengths = shape_buffer(&buffers->pair_scalars, {plan.pairs}).mutable_data_ptr<float>();
  const auto* rows = plan.pairs > 0 ? buffers->pair_rows.const_data_ptr<E>() : nullptr;
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

template <typename E>
void apply_experts_hidden(const std::vector<FeedForwardView>& experts, const ExchangePlan& plan,
                          const at::Tensor& rows, at::Tensor* hidden, Scratch* scratch) {
  if (experts.empty()) return;
  const int64_t F = experts[0].F;
  E* h = shape_stored<E>(hidden, {plan.pairs, 2 * F});
  const auto count = static_cast<int64_t>(experts.size());
  for_each_expert<E>(plan, count, rows, scratch,
                     [&](int64_t e, int64_t begin, int64_t n, E* packed) {
                       feed_forward_hidden(experts[e], n, packed, h + begin * 2 * F);
                     });
}

template <typename E>
void apply_experts_backward(const std::vector<FeedForwardView>& experts,
                            const std::vector<FeedForwardView>& gradients, bool onto,
                            const ExchangePlan& plan, const at::Tensor& rows,
                            const at::Tensor& hidden, const at::Tensor& d_out,
                            const at::Tensor& d_rows, ExpertBuffers* buffers, Scratch* scratch) {
  float* d_weights = shape_buffer(&buffers->pair_scalars, {plan.pairs}).mutable_data_ptr<float>();
  if (experts.empty()) return;
  const int64_t D = experts[0].D;
  const int64_t F = experts[0].F;
  TORCH_CHECK(d_out.size(0) == plan.rows && d_rows.sizes() == d_out.sizes(),
              "experts backward: ", d_out.sizes(), " for a plan of ", plan.rows, " rows");
  E* h = hidden.mutable_data_ptr<E>();
  E* d_pairs = shape_stored<E>(&buffers->pair_rows, {plan.pairs, D});
  const auto* dy = d_out.const_data_ptr<E>();
  if (!onto) zero_unused(gradients, plan);
  const auto count = static_cast<int64_t>(experts.size());
  for_each_expert<E>(
      plan, count, rows, scratch, [&](int64_t e, int64_t begin, int64_t n, E* packed) {
        E* packed_dy = scratch->get<E>(1, n * D);
        E* act = scratch->get<E>(2, n * F);
        E* d_act = scratch->get<E>(3, n * F);
        gather_rows(plan, begin, n, D, dy, packed_dy);
        feed_forward_backward(experts[e], gradients[e], onto ? 1 : 0, n, packed,
                              plan.weight_of_pair.data() + begin, h + begin * 2 * F, packed_dy, act,
                              d_act, 0, d_pairs + begin * D, d_weights + begin);
      });
  combine_pairs(plan, D, d_pairs, d_rows.mutable_data_ptr<E>());
}

template void apply_experts<float>(const std::vector<FeedForwardView>&, const ExchangePlan&,
                                   const at::Tensor&, at::Tensor*, const at::Tensor&,
                                   ExpertBuffers*, Scratch*);
template void pair_lengths<float>(const ExchangePlan&, int64_t, ExpertBuffers*);
template void pair_lengths<Bf16>(const ExchangePlan&, int64_t, ExpertBuffers*);
template void apply_experts_hidden<float>(const std::vector<FeedForwardView>&, const ExchangePlan&,
                                          const at::Tensor&, at::Tensor*, Scratch*);
template void apply_experts_backward<float>(const std::vector<FeedForwardView>&,
                                            const std::vector<FeedForwardView>&, bool,
                                            const ExchangePlan&, const at::Tensor&,
                                            const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                            ExpertBuffers*, Scratch*);
template void apply_experts<Bf16>(const std::vector<FeedForwardView>&, const ExchangePlan&,
                                  const at::Tensor&, at::Tensor*, const at::Tensor&, ExpertBuffers*,
                                  Scratch*);
template void apply_experts_hidden<Bf16>(const std::vector<FeedForwardView>&, const ExchangePlan&,
                                         const at::Tensor&, at::Tensor*, Scratch*);
template void apply_experts_backward<Bf16>(const std::vector<FeedForwardView>&,
                                           const std::vector<FeedForwardView>&, bool,
                                           const ExchangePlan&, const at::Tensor&,
                                           const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                           ExpertBuffers*, Scratch*);

}  // namespace emo

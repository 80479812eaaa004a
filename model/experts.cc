#include "model/experts.h"

#include <c10/util/Exception.h>

#include <cstring>

#include "model/simd.h"
#include "parallel/buffers.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

// packed[i] = rows[plan.row_of_pair[begin + i]]
void gather_rows(const ExchangePlan& plan, int64_t begin, int64_t count, int64_t D,
                 const float* rows, float* packed) {
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(packed + i * D, rows + plan.row_of_pair[begin + i] * D, D * sizeof(float));
  }
}

EMO_SIMD void sum_pairs(int64_t begin, int64_t end, int64_t D, const int32_t* first_pair,
                        const int32_t* pairs, const float* pair_rows, float* rows) {
  for (int64_t r = begin; r < end; ++r) {
    float* row = rows + r * D;
    for (int64_t d = 0; d < D; ++d) row[d] = 0;
    for (int32_t p = first_pair[r]; p < first_pair[r + 1]; ++p) {
      const float* from = pair_rows + pairs[p] * D;
      for (int64_t d = 0; d < D; ++d) row[d] += from[d];
    }
  }
}

// rows[r] = sum of pair_rows over the pairs of r, in a fixed order
void combine_pairs(const ExchangePlan& plan, int64_t D, const float* pair_rows, float* rows) {
  parallel_for(plan.rows, 64, [&](int64_t begin, int64_t end) {
    sum_pairs(begin, end, D, plan.first_pair_of_row.data(), plan.pair_of_row.data(), pair_rows,
              rows);
  });
}

// Calls f(e, begin, n, packed) for each expert here that has pairs, as tasks: its pairs are
// [begin, begin + n), and packed [n, D] (slot 0 of the scratch) their rows.
template <typename F>
void for_each_expert(const ExchangePlan& plan, int64_t experts, const at::Tensor& rows,
                     Scratch* scratch, const F& f) {
  const int64_t D = rows.size(1);
  const auto* x = rows.const_data_ptr<float>();
  parallel_tasks(experts, [&](int64_t e) {
    const int64_t begin = plan.expert_begin[e];
    const int64_t n = plan.expert_begin[e + 1] - begin;
    if (n == 0) return;
    float* packed = scratch->get(0, n * D);
    gather_rows(plan, begin, n, D, x, packed);
    f(e, begin, n, packed);
  });
}

}  // namespace

void apply_experts(const std::vector<FeedForwardView>& experts, const ExchangePlan& plan,
                   const at::Tensor& rows, at::Tensor* hidden, const at::Tensor& out,
                   ExpertBuffers* buffers, Scratch* scratch) {
  if (experts.empty()) return;
  const int64_t D = experts[0].D;
  const int64_t F = experts[0].F;
  TORCH_CHECK(rows.size(0) == plan.rows && rows.size(1) == D && out.sizes() == rows.sizes(),
              "experts: rows ", rows.sizes(), " for a plan of ", plan.rows, ", out ", out.sizes());
  float* h = shape_buffer(hidden, {plan.pairs, 2 * F}).mutable_data_ptr<float>();
  float* results = shape_buffer(&buffers->pair_rows, {plan.pairs, D}).mutable_data_ptr<float>();
  const auto count = static_cast<int64_t>(experts.size());
  for_each_expert(plan, count, rows, scratch,
                  [&](int64_t e, int64_t begin, int64_t n, float* packed) {
                    feed_forward(experts[e], n, packed, plan.weight_of_pair.data() + begin,
                                 h + begin * 2 * F, scratch->get(1, n * F), 0, results + begin * D);
                  });
  combine_pairs(plan, D, results, out.mutable_data_ptr<float>());
}

void apply_experts_hidden(const std::vector<FeedForwardView>& experts, const ExchangePlan& plan,
                          const at::Tensor& rows, at::Tensor* hidden, Scratch* scratch) {
  if (experts.empty()) return;
  const int64_t F = experts[0].F;
  float* h = shape_buffer(hidden, {plan.pairs, 2 * F}).mutable_data_ptr<float>();
  const auto count = static_cast<int64_t>(experts.size());
  for_each_expert(plan, count, rows, scratch,
                  [&](int64_t e, int64_t begin, int64_t n, float* packed) {
                    feed_forward_hidden(experts[e], n, packed, h + begin * 2 * F);
                  });
}

void apply_experts_backward(const std::vector<FeedForwardView>& experts,
                            const std::vector<FeedForwardView>& gradients, const ExchangePlan& plan,
                            const at::Tensor& rows, const at::Tensor& hidden,
                            const at::Tensor& d_out, const at::Tensor& d_rows,
                            ExpertBuffers* buffers, Scratch* scratch) {
  float* d_weights = shape_buffer(&buffers->pair_scalars, {plan.pairs}).mutable_data_ptr<float>();
  if (experts.empty()) return;
  const int64_t D = experts[0].D;
  const int64_t F = experts[0].F;
  TORCH_CHECK(d_out.size(0) == plan.rows && d_rows.sizes() == d_out.sizes(),
              "experts backward: ", d_out.sizes(), " for a plan of ", plan.rows, " rows");
  float* h = hidden.mutable_data_ptr<float>();
  float* d_pairs = shape_buffer(&buffers->pair_rows, {plan.pairs, D}).mutable_data_ptr<float>();
  const auto* dy = d_out.const_data_ptr<float>();
  const auto count = static_cast<int64_t>(experts.size());
  for_each_expert(
      plan, count, rows, scratch, [&](int64_t e, int64_t begin, int64_t n, float* packed) {
        float* packed_dy = scratch->get(1, n * D);
        float* act = scratch->get(2, n * F);
        float* d_act = scratch->get(3, n * F);
        gather_rows(plan, begin, n, D, dy, packed_dy);
        feed_forward_backward(experts[e], gradients[e], n, packed,
                              plan.weight_of_pair.data() + begin, h + begin * 2 * F, packed_dy, act,
                              d_act, 0, d_pairs + begin * D, d_weights + begin);
      });
  combine_pairs(plan, D, d_pairs, d_rows.mutable_data_ptr<float>());
}

}  // namespace emo

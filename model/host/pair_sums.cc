#include "model/host/pair_sums.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "model/host/bf16.h"
#include "model/host/simd.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

constexpr int64_t kGrain = 64;  // rows

// to[D] = (kAdd ? to : 0) + the sum of kRows rows of D, in their order: entries meet in a register.
template <int kRows, bool kAdd, typename Stored, typename Y>
EMO_SIMD void sum_rows(int64_t D, const Stored* const* from, Y* to) {
#pragma omp simd
  for (int64_t d = 0; d < D; ++d) {
    float sum = 0;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) sum += widen(from[r][d]);
    to[d] = narrow<Y>(kAdd ? widen(to[d]) + sum : sum);
  }
}

// The same for any number of rows.
template <bool kAdd, typename Stored, typename Y>
EMO_SIMD void sum_any_rows(int64_t D, const Stored* const* from, int64_t count, Y* to) {
  constexpr int64_t kColumns = 256;  // summed up at a time
  float sums[kColumns];
  for (int64_t column = 0; column < D; column += kColumns) {
    const int64_t columns = std::min(kColumns, D - column);
    for (int64_t d = 0; d < columns; ++d) sums[d] = 0;
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t d = 0; d < columns; ++d) sums[d] += widen(from[r][column + d]);
    }
    for (int64_t d = 0; d < columns; ++d) {
      Y& value = to[column + d];
      value = narrow<Y>(kAdd ? widen(value) + sums[d] : sums[d]);
    }
  }
}

// The pairs of rows, and where their sums go: row r to to + target[r] * D, or to + (r - first) * D
// where target is null.
template <typename Stored, typename Y>
struct Sums {
  const int32_t* first_pair;  // [R + 1]
  const int32_t* pairs;
  const Stored* pair_rows;
  const int32_t* target;
  int64_t first;
  Y* to;
};

// `from` has room for the pairs of a row.
template <bool kAdd, typename Stored, typename Y>
EMO_SIMD void sum_pairs(const Sums<Stored, Y>& sums, int64_t begin, int64_t end, int64_t D,
                        const Stored** from) {
  for (int64_t r = begin; r < end; ++r) {
    const int64_t count = sums.first_pair[r + 1] - sums.first_pair[r];
    const int32_t* pairs = sums.pairs + sums.first_pair[r];
    for (int64_t p = 0; p < count; ++p) from[p] = sums.pair_rows + pairs[p] * D;
    Y* to = sums.to + (sums.target != nullptr ? sums.target[r] : r - sums.first) * D;
    switch (count) {
      // clang-format off
      case 1: sum_rows<1, kAdd>(D, from, to); break;
      case 2: sum_rows<2, kAdd>(D, from, to); break;
      case 3: sum_rows<3, kAdd>(D, from, to); break;
      case 4: sum_rows<4, kAdd>(D, from, to); break;
      case 5: sum_rows<5, kAdd>(D, from, to); break;
      case 6: sum_rows<6, kAdd>(D, from, to); break;
      case 7: sum_rows<7, kAdd>(D, from, to); break;
      case 8: sum_rows<8, kAdd>(D, from, to); break;
      default: sum_any_rows<kAdd>(D, from, count, to);
        // clang-format on
    }
  }
}

template <bool kAdd, typename Stored, typename Y>
void sum_range(const Sums<Stored, Y>& sums, int64_t begin, int64_t end, int64_t D) {
  int64_t most = 0;
  for (int64_t r = begin; r < end; ++r) {
    most = std::max<int64_t>(most, sums.first_pair[r + 1] - sums.first_pair[r]);
  }
  std::vector<const Stored*> from(most);
  vectorised<sum_pairs<kAdd, Stored, Y>>(sums, begin, end, D, from.data());
}

// The rows of whole tokens: those of [begin, end) whose token does not begin before, up to the last
// one's end. Rows stand in order of tokens; a token has several where each expert has its own.
std::pair<int64_t, int64_t> of_whole_tokens(const int32_t* token_of_row, int64_t rows,
                                            int64_t begin, int64_t end) {
  const auto continues = [&](int64_t r) { return r > 0 && token_of_row[r] == token_of_row[r - 1]; };
  while (begin < end && continues(begin)) ++begin;
  if (begin == end) return {end, end};
  while (end < rows && continues(end)) ++end;
  return {begin, end};
}

}  // namespace

template <typename Stored>
void sum_arrived_rows(const ExchangePlan& plan, const at::Tensor& pair_rows,
                      const at::Tensor& out) {
  const int64_t D = out.size(1);
  TORCH_CHECK(out.size(0) == plan.arrived_rows() && pair_rows.size(0) == plan.pairs,
              "sum_arrived_rows: ", pair_rows.sizes(), " to ", out.sizes(), " for ", plan.pairs,
              " pairs of ", plan.arrived_rows(), " rows");
  const Sums<Stored, Stored> sums{plan.first_pair_of_row.data(),
                                  plan.pair_of_row.data(),
                                  pair_rows.const_data_ptr<Stored>(),
                                  nullptr,
                                  /*first=*/plan.own_rows,
                                  out.mutable_data_ptr<Stored>()};
  parallel_for(plan.arrived_rows(), kGrain, [&](int64_t begin, int64_t end) {
    sum_range<false>(sums, plan.own_rows + begin, plan.own_rows + end, D);
  });
}

template <typename Stored>
void add_own_rows(const ExchangePlan& plan, const at::Tensor& pair_rows, const at::Tensor& tokens) {
  const int64_t D = tokens.size(1);
  TORCH_CHECK(pair_rows.size(0) == plan.pairs && plan.own_tokens() <= tokens.size(0),
              "add_own_rows: ", pair_rows.sizes(), " to ", tokens.sizes(), " for ", plan.pairs,
              " pairs");
  const int32_t* token_of_row = plan.token_of_sent_row.data();
  const Sums<Stored, float> sums{plan.first_pair_of_row.data(),
                                 plan.pair_of_row.data(),
                                 pair_rows.const_data_ptr<Stored>(),
                                 token_of_row,
                                 /*first=*/0,
                                 tokens.mutable_data_ptr<float>()};
  parallel_for(plan.own_rows, kGrain, [&](int64_t begin, int64_t end) {
    const auto [first, last] = of_whole_tokens(token_of_row, plan.own_rows, begin, end);
    sum_range<true>(sums, first, last, D);
  });
}

template void sum_arrived_rows<float>(const ExchangePlan&, const at::Tensor&, const at::Tensor&);
template void sum_arrived_rows<Bf16>(const ExchangePlan&, const at::Tensor&, const at::Tensor&);
template void add_own_rows<float>(const ExchangePlan&, const at::Tensor&, const at::Tensor&);
template void add_own_rows<Bf16>(const ExchangePlan&, const at::Tensor&, const at::Tensor&);

}  // namespace emo

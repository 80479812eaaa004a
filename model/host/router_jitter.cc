#include "model/host/router_jitter.h"

#include <algorithm>

#include "model/host/bf16.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

// f(i, factor) for every number i of T x D.
template <typename F>
void for_each_factor(int64_t T, int64_t D, const RouterJitter& noise, const F& f) {
  const auto* span_of = noise.span_of.const_data_ptr<int32_t>();
  const auto* sequence = noise.sequence_index.const_data_ptr<int64_t>();
  parallel_for(T, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t row = sequence[span_of[t]];
      for (int64_t first = 0; first < D; first += kJitterBlock) {
        const PhiloxCounter words =
            jitter_words(noise.seed, row, t % noise.row_tokens, noise.layer, first / kJitterBlock);
        const int64_t count = std::min(kJitterBlock, D - first);
        for (int64_t i = 0; i < count; ++i) {
          f(t * D + first + i, jitter_factor(words[i], noise.epsilon));
        }
      }
    }
  });
}

}  // namespace

template <typename Stored>
void jitter(int64_t T, int64_t D, const Stored* x, const RouterJitter& noise, Stored* y) {
  for_each_factor(T, D, noise,
                  [=](int64_t i, float factor) { y[i] = narrow<Stored>(widen(x[i]) * factor); });
}
template void jitter(int64_t, int64_t, const float*, const RouterJitter&, float*);
template void jitter(int64_t, int64_t, const Bf16*, const RouterJitter&, Bf16*);

void add_jittered(int64_t T, int64_t D, const float* d, const RouterJitter& noise, float* dx) {
  for_each_factor(T, D, noise, [=](int64_t i, float factor) { dx[i] += d[i] * factor; });
}

}  // namespace emo

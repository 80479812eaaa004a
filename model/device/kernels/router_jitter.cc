#include "model/device/kernels/router_jitter.h"

#include "model/device/kernel.h"

namespace emo::device {
namespace {

// to = (onto ? to : 0) + from * noise; a thread for each block of features.
template <typename S>
void multiply(const at::Tensor& from, const RouterJitter& noise, bool onto, const at::Tensor& to) {
  const int64_t D = from.size(1);
  const int64_t blocks = (D + kJitterBlock - 1) / kJitterBlock;
  const auto* x = from.const_data_ptr<S>();
  const auto* span_of = noise.span_of.const_data_ptr<int32_t>();
  const auto* sequence = noise.sequence_index.const_data_ptr<int64_t>();
  auto* y = to.mutable_data_ptr<S>();
  const uint64_t seed = noise.seed;
  const int64_t layer = noise.layer;
  const int64_t row_tokens = noise.row_tokens;
  const float epsilon = noise.epsilon;
  for_each(from.device(), from.size(0) * blocks, [=] EMO_HOST_DEVICE(int64_t i) {
    const int64_t t = i / blocks;
    const int64_t block = i % blocks;
    const PhiloxCounter words =
        jitter_words(seed, sequence[span_of[t]], t % row_tokens, layer, block);
    for (int64_t n = 0; n < kJitterBlock; ++n) {
      const int64_t d = block * kJitterBlock + n;
      if (d >= D) continue;
      const float was = onto ? static_cast<float>(y[t * D + d]) : 0.0f;
      y[t * D + d] =
          static_cast<S>(was + static_cast<float>(x[t * D + d]) * jitter_factor(words[n], epsilon));
    }
  });
}

}  // namespace

void jitter(const at::Tensor& x, const RouterJitter& noise, const at::Tensor& y) {
  with_scalar(x.scalar_type(), [&](auto zero) { multiply<decltype(zero)>(x, noise, false, y); });
}

void add_jittered(const at::Tensor& d, const RouterJitter& noise, const at::Tensor& dx) {
  with_scalar(d.scalar_type(), [&](auto zero) { multiply<decltype(zero)>(d, noise, true, dx); });
}

}  // namespace emo::device

#include "model/device/kernels/gradient.h"

#include <numeric>

#include "model/device/kernel.h"

namespace emo::device {
namespace {

template <typename S, int N>
void add(const at::Tensor& gradients, bool onto, const at::Tensor& sums) {
  const int64_t out = sums.size(1);
  const int64_t in = sums.size(2);
  const int64_t distance = sums.stride(0);
  const auto* gradient = gradients.const_data_ptr<S>();
  auto* sum = sums.mutable_data_ptr<float>();
  for_each_row(sums.device(), sums.size(0) * out, [=] EMO_HOST_DEVICE(int64_t row, Lanes lanes) {
    float* to = sum + row / out * distance + row % out * in;
    const S* from = gradient + row * in;
    for (int64_t i = lanes.index() * N; i < in; i += lanes.count() * N) {
      const Pack<S, N> added = pack_at<N>(from + i);
      Pack<float, N> total{};
      if (onto) total = pack_at<N>(to + i);
      for (int n = 0; n < N; ++n) total.at[n] += static_cast<float>(added.at[n]);
      pack_at<N>(to + i) = total;
    }
  });
}

}  // namespace

void add_gradient(const at::Tensor& gradient, bool onto, const at::Tensor& sum) {
  TORCH_CHECK(gradient.is_contiguous() && sum.stride(1) == sum.size(2) && sum.stride(2) == 1,
              "matrices of gradients must be contiguous");
  with_packs(std::gcd(sum.size(2), sum.stride(0)), {gradient, sum},
             [&](auto zero, auto pack) { add<decltype(zero), pack()>(gradient, onto, sum); });
}

}  // namespace emo::device

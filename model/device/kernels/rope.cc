#include "model/device/kernels/rope.h"

#include <numeric>

#include "model/device/kernel.h"

namespace emo::device {
namespace {

template <typename S, int N>
void rotate_pairs(const RopeTable& table, float direction, const at::Tensor& position_of,
                  int64_t heads, int64_t head_dim, const at::Tensor& xs) {
  const auto half = static_cast<int>(head_dim / 2);
  const auto pairs = static_cast<int>(heads) * half;  // of a row
  const int64_t stride = xs.size(1);
  const auto* cosines = table.cosines.const_data_ptr<float>();
  const auto* sines = table.sines.const_data_ptr<float>();
  const auto* positions = position_of.const_data_ptr<int32_t>();
  auto* x = xs.mutable_data_ptr<S>();
  for_each_row(xs.device(), xs.size(0), [=] EMO_HOST_DEVICE(int64_t t, Lanes lanes) {
    const int64_t entry = static_cast<int64_t>(positions[t]) * half;
    for (int n = lanes.index() * N; n < pairs; n += lanes.count() * N) {
      const int i = n % half;
      S* at = x + t * stride + n / half * 2 * half + i;
      const Pack<float, N> cosine = pack_at<N>(cosines + entry + i);
      const Pack<float, N> sine = pack_at<N>(sines + entry + i);
      Pack<S, N> first = pack_at<N>(at);
      Pack<S, N> second = pack_at<N>(at + half);
      for (int k = 0; k < N; ++k) {
        const auto a = static_cast<float>(first.at[k]);
        const auto b = static_cast<float>(second.at[k]);
        const float s = direction * sine.at[k];
        first.at[k] = static_cast<S>(a * cosine.at[k] - b * s);
        second.at[k] = static_cast<S>(b * cosine.at[k] + a * s);
      }
      pack_at<N>(at) = first;
      pack_at<N>(at + half) = second;
    }
  });
}

}  // namespace

void rotate(const RopeTable& table, Rotation rotation, const at::Tensor& positions, int64_t heads,
            int64_t head_dim, const at::Tensor& x) {
  const float direction = rotation == Rotation::kForward ? 1.0f : -1.0f;
  with_packs(std::gcd(head_dim / 2, x.size(1)), {x, table.cosines, table.sines},
             [&](auto zero, auto pack) {
               rotate_pairs<decltype(zero), pack()>(table, direction, positions, heads, head_dim,
                                                    x);
             });
}

}  // namespace emo::device

#include "model/device/kernels/rope.h"

#include "model/device/kernel.h"

namespace emo::device {
namespace {

template <typename S>
void rotate_pairs(const RopeTensors& table, float direction, const at::Tensor& position_of,
                  int64_t heads, int64_t head_dim, const at::Tensor& xs) {
  const int64_t half = head_dim / 2;
  const int64_t stride = xs.size(1);
  const auto* cosines = table.cosines.const_data_ptr<float>();
  const auto* sines = table.sines.const_data_ptr<float>();
  const auto* positions = position_of.const_data_ptr<int32_t>();
  auto* x = xs.mutable_data_ptr<S>();
  for_each(xs.device(), xs.size(0) * heads * half, [=] EMO_HOST_DEVICE(int64_t n) {
    const int64_t i = n % half;
    const int64_t head = n / half % heads;
    const int64_t t = n / (half * heads);
    const int64_t entry = positions[t] * half + i;
    const float cosine = cosines[entry];
    const float sine = direction * sines[entry];
    S* at = x + t * stride + head * head_dim + i;
    const auto a = static_cast<float>(at[0]);
    const auto b = static_cast<float>(at[half]);
    at[0] = static_cast<S>(a * cosine - b * sine);
    at[half] = static_cast<S>(b * cosine + a * sine);
  });
}

}  // namespace

void rotate(const RopeTensors& table, Rotation rotation, const at::Tensor& positions, int64_t heads,
            int64_t head_dim, const at::Tensor& x) {
  const float direction = rotation == Rotation::kForward ? 1.0f : -1.0f;
  with_scalar(x.scalar_type(), [&](auto zero) {
    rotate_pairs<decltype(zero)>(table, direction, positions, heads, head_dim, x);
  });
}

}  // namespace emo::device

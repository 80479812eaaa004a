#include "model/rope_table.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <cmath>

namespace emo {

RopeTable make_rope_table(int64_t positions, int64_t head_dim, double theta, at::Device device) {
  const int64_t half = head_dim / 2;
  const at::Tensor cosines = at::empty({positions, half}, at::TensorOptions().dtype(at::kFloat));
  const at::Tensor sines = at::empty_like(cosines);
  auto* cosine = cosines.mutable_data_ptr<float>();
  auto* sine = sines.mutable_data_ptr<float>();
  for (int64_t i = 0; i < half; ++i) {
    const auto frequency = static_cast<float>(
        std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim)));
    for (int64_t position = 0; position < positions; ++position) {
      const float angle = static_cast<float>(position) * frequency;
      cosine[position * half + i] = std::cos(angle);
      sine[position * half + i] = std::sin(angle);
    }
  }
  return {cosines.to(device), sines.to(device)};
}

}  // namespace emo

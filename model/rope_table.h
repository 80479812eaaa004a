// Rotary position embedding (Su et al. 2021, arXiv 2104.09864), half-split layout: dimension i of a
// head is rotated together with dimension i + head_dim / 2, by position * theta^(-2 i / head_dim).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace emo {

// Cosines and sines of a table of positions, f32 [positions, head_dim / 2] as the reference.
struct RopeTable {
  at::Tensor cosines, sines;
  int64_t positions() const { return cosines.size(0); }
};
RopeTable make_rope_table(int64_t positions, int64_t head_dim, double theta, at::Device device);

enum class Rotation { kForward, kBackward };

}  // namespace emo

// Rotary position embedding (Su et al. 2021, arXiv 2104.09864), half-split layout: dimension i of a
// head is rotated together with dimension i + head_dim / 2, by position * theta^(-2 i / head_dim).
#pragma once

#include <cstdint>
#include <vector>

namespace emo {

// Cosines and sines of a table of positions, fp32 as the reference.
class RopeTable {
 public:
  RopeTable(int64_t positions, int64_t head_dim, double theta);
  int64_t positions() const { return positions_; }
  const float* cosines(int64_t position) const { return cosines_.data() + position * half_; }
  const float* sines(int64_t position) const { return sines_.data() + position * half_; }

 private:
  int64_t positions_, half_;
  std::vector<float> cosines_, sines_;  // [positions, head_dim / 2]
};

enum class Rotation { kForward, kBackward };

// Rotates, in place, the first `heads` heads of each row of x [T, stride], row t by positions[t].
// Attention sees differences of positions only. Fails for a position that is not in the table.
// Stored: float or Bf16.
template <typename Stored>
void rotate(const RopeTable& table, Rotation rotation, int64_t T, const int32_t* positions,
            int64_t heads, int64_t head_dim, int64_t stride, Stored* x);

}  // namespace emo

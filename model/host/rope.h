// Rotary position embedding (model/rope_table.h) on the host.
#pragma once

#include <cstdint>

#include "model/rope_table.h"

namespace emo {

// Rotates, in place, the first `heads` heads of each row of x [T, stride], row t by positions[t].
// Attention sees differences of positions only. Fails for a position that is not in the table.
// Stored: float or Bf16.
template <typename Stored>
void rotate(const RopeTable& table, Rotation rotation, int64_t T, const int32_t* positions,
            int64_t heads, int64_t head_dim, int64_t stride, Stored* x);

}  // namespace emo

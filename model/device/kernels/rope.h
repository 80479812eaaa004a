// Rotary position embedding (model/rope_table.h) on a device.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/rope_table.h"

namespace emo::device {

// Rotates, in place, the first `heads` heads of each row of x S [T, stride], row t by positions i32
// [T], which are rows of the table.
void rotate(const RopeTable& table, Rotation rotation, const at::Tensor& positions, int64_t heads,
            int64_t head_dim, const at::Tensor& x);

}  // namespace emo::device

// Rotary position embedding (model/host/rope.h) on a device.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/host/rope.h"

namespace emo::device {

// Cosines and sines f32 [positions, head_dim / 2] in the device's memory.
struct RopeTensors {
  at::Tensor cosines, sines;
};

// Rotates, in place, the first `heads` heads of each row of x S [T, stride], row t by positions i32
// [T], which are rows of the table.
void rotate(const RopeTensors& table, Rotation rotation, const at::Tensor& positions, int64_t heads,
            int64_t head_dim, const at::Tensor& x);

}  // namespace emo::device

// Token embedding (model/host/embedding.h) on a device.
#pragma once

#include <ATen/core/Tensor.h>

namespace emo::device {

// x S [T, D]: x_t = table[tokens_t], table S [V, D], tokens i32 [T] in [0, V).
void embed(const at::Tensor& tokens, const at::Tensor& table, const at::Tensor& x);

// Adds dx S [T, D] to the rows of d_table f32 [V, D]: `sorted` i32 [T] are the tokens in ascending
// order and `order` i64 [T] where each stood, equal ones in order, so always the same bits.
void embed_backward(const at::Tensor& sorted, const at::Tensor& order, const at::Tensor& dx,
                    const at::Tensor& d_table);

}  // namespace emo::device

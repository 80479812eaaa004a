// The operations of a model (model/backend.h) on a device: a GPU, or the CPU with the code of the
// GPU, which tests compare with the host's.
//
// Parameters, the residual stream and all that is stored are of one type, fp32 or bf16. Memory
// comes from libtorch's allocator and goes back to it. The host waits for the device in plan(),
// where experts are spread over ranks, and nowhere else.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "model/backend.h"

namespace emo::device {

// `head_rows`: tokens whose logits are in memory at once.
std::shared_ptr<Backend> make_backend(at::Device device, at::ScalarType type,
                                      int64_t head_rows = 4096);

}  // namespace emo::device

// Evaluation on a device (model/inference.h), in the type of the model's parameters.
#pragma once

#include <memory>

#include "model/device/transformer.h"
#include "model/inference.h"
#include "parallel/mesh.h"

namespace emo::device {

// Model and mesh, whose communicators serve the device's tensors, must outlive it; the model's
// table of positions grows as slices need it. Decoding attends by the
// plain kernel (kernels/plain_attention.h).
std::unique_ptr<Inference> make_inference(DeviceModel* model, const Mesh& mesh);

}  // namespace emo::device

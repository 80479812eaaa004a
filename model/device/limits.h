// What of a model the device path does not compute, for those who ask before they build one.
#pragma once

#include <c10/core/ScalarType.h>

#include <vector>

#include "model/backend.h"
#include "model/config.h"

namespace emo::device {

// Of parameters and activations of this type, on a GPU or emulated. Empty where all can be
// computed.
std::vector<Limit> limits_of(const ModelConfig& config, at::ScalarType type, bool gpu);

}  // namespace emo::device

// What of a model the device path does not compute, for those who ask before they build one.
#pragma once

#include <string>
#include <vector>

#include "model/config.h"

namespace emo::device {

struct Limit {
  std::string field;  // of ModelConfig, by its name in a config
  std::string why;
};

// Empty where all can be computed. `flash`: in bf16 on a GPU, where attention is libtorch's.
std::vector<Limit> limits_of(const ModelConfig& config, bool flash);

}  // namespace emo::device

// What the config.json of a model folder says of its model.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "data/rows/batch.h"
#include "model/config.h"

namespace emo {

struct ModelDescription {
  ModelConfig config;
  int64_t max_positions = 4096;  // rows of the training run
  int32_t eos_id = 0;
  bool document_attention = true;
  EosRoutesWith eos_routes_with = EosRoutesWith::kPrevious;
  RoutingContract contract;     // pool none where the file states no contract
  bool contract_stated = true;  // false: the folder does not say how the model was trained
  // Special tokens as the folder states them, for other programs; ours reads eos_id only.
  std::optional<int64_t> pad_id = std::nullopt;
  std::optional<int64_t> bos_id = std::nullopt;
  std::optional<std::vector<int64_t>> stop_ids = std::nullopt;  // what ends an answer; none: eos_id
};

}  // namespace emo

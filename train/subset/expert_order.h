// The order in which ranks hold a model's experts (model/parameters.h) as a file: what `emo experts
// place` writes, what parallel.placement names, and what a checkpoint carries as placement.json.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "data/files/json.h"
#include "model/parameters.h"

namespace emo {

constexpr char kPlacementFile[] = "placement.json";

// {"order": [[...], ...]}, a list for each layer, empty in dense layers.
OrderedJson to_json(const ExpertOrder& order);

// NotFound without the file. DataLoss that lists every layer whose order is not one of the model's
// experts.
absl::StatusOr<ExpertOrder> read_expert_order(const std::string& path, const ModelConfig& config);

// The order that a checkpoint carries; empty where it carries none.
absl::StatusOr<ExpertOrder> carried_expert_order(const std::string& checkpoint,
                                                 const ModelConfig& config);

// The order in which a model's experts lie, empty where every layer goes by number.
ExpertOrder expert_order_of(const ParameterLayout& layout);

}  // namespace emo

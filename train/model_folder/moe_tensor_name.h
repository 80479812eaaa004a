// Names of the tensors of MoE layers in Hugging Face folders (emo-facts 7.2).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace emo {

// "model.layers.L.mlp.experts.E.REST", or of a router, with a row for each expert,
// "model.layers.L.mlp.gate.REST".
struct MoeTensorName {
  int64_t layer = 0;
  std::optional<int64_t> expert;  // none: the router
  std::string rest;               // "gate_proj.weight"; "weight", "e_score_correction_bias"
};

// Nothing for other tensors.
std::optional<MoeTensorName> parse_moe_tensor_name(const std::string& name);
std::string moe_tensor_name(const MoeTensorName& parsed);

}  // namespace emo

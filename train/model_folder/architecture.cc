#include "train/model_folder/architecture.h"

#include <numeric>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "train/model_folder/description_fields.h"

namespace emo {
namespace {

constexpr int32_t kOlmoeStop = 50279;

absl::StatusOr<ModelDescription> read_olmoe(const Json& json, const std::string& path) {
  JsonFields fields(json, path);
  ModelDescription d;
  ModelConfig& c = d.config;
  c.qk_norm = true;
  c.num_shared_experts = 0;
  c.norm_epsilon = 1e-5;  // this and what follows: the class's own defaults
  c.rope_theta = 10000;
  d.pad_id = 1;
  d.stop_ids = {kOlmoeStop};
  d.eos_id = kOlmoeStop;
  fields.required("num_experts", &c.num_experts);
  fields.required("num_experts_per_tok", &c.top_k);
  fields.required("intermediate_size", &c.d_expert);
  read_attention_and_sizes(&fields, &d);
  if (c.d_expert < 1 || c.top_k < 1 || c.num_experts < c.top_k || c.num_experts > (1 << 16)) {
    fields.wrong(absl::StrCat("these sizes are not possible together: intermediate_size ",
                              c.d_expert, ", num_experts ", c.num_experts, ", num_experts_per_tok ",
                              c.top_k));
  }
  if (!fields.status().ok()) return fields.status();
  return d;
}

absl::StatusOr<ModelDescription> read_dense(const Json& json, const std::string& path) {
  JsonFields fields(json, path);
  ModelDescription d;
  ModelConfig& c = d.config;
  c.num_shared_experts = 0;
  fields.required("intermediate_size", &c.d_ffn);
  read_attention_and_sizes(&fields, &d);
  if (c.d_ffn < 1) fields.wrong(absl::StrCat("intermediate_size ", c.d_ffn));
  if (!fields.status().ok()) return fields.status();
  c.dense_layers.resize(c.n_layers);
  std::iota(c.dense_layers.begin(), c.dense_layers.end(), 0);
  return d;
}

}  // namespace

absl::StatusOr<ForeignModel> read_architecture(const std::string& path) {
  absl::StatusOr<Json> json = read_json_file(path, 1u << 24);
  if (!json.ok()) return json.status();
  absl::StatusOr<std::string> type = json_field_or<std::string>(*json, "model_type", "emo", path);
  if (!type.ok()) return type.status();
  const bool emo = *type == "flex_olmo_noqknorm_prenorm";  // an older name
  absl::StatusOr<Architecture> architecture = parse_architecture(emo ? "emo" : *type);
  if (!architecture.ok()) {
    return absl::DataLossError(absl::StrCat(path, ": ", architecture.status().message()));
  }
  absl::StatusOr<ModelDescription> description =
      *architecture == Architecture::kOlmoe   ? read_olmoe(*json, path)
      : *architecture == Architecture::kDense ? read_dense(*json, path)
                                              : read_config_json(path);
  if (!description.ok()) return description.status();
  ForeignModel model{*architecture, *std::move(description)};
  if (*architecture != Architecture::kEmo) {
    model.description.contract_stated = false;
    model.description.contract.pool.kind = PoolPolicy::Kind::kNone;
    model.description.document_attention = false;
  }
  return model;
}

std::string name_in(Architecture architecture, const std::string& parameter) {
  if (architecture != Architecture::kOlmoe) return parameter;
  return absl::StrReplaceAll(parameter,
                             {{".pre_attention_layernorm.", ".input_layernorm."},
                              {".pre_feedforward_layernorm.", ".post_attention_layernorm."}});
}

absl::Status check_expressible(Architecture architecture, const ModelConfig& c) {
  const char* why = nullptr;
  if (architecture == Architecture::kOlmoe) {
    why = !c.qk_norm                 ? "olmoe normalises queries and keys, this model does not"
          : c.num_shared_experts > 0 ? "olmoe has no shared experts"
          : !c.dense_layers.empty()  ? "olmoe has no dense layers"
          : c.selection_bias         ? "olmoe's routers have no selection bias"
                                     : nullptr;
  } else if (architecture == Architecture::kDense) {
    why = c.moe_layers() > 0 ? "olmo2_noqknorm_prenorm has no experts"
          : c.qk_norm        ? "olmo2_noqknorm_prenorm does not normalise queries and keys"
                             : nullptr;
  }
  return why == nullptr ? absl::OkStatus() : absl::InvalidArgumentError(why);
}

OrderedJson config_json_in(Architecture architecture, const ModelDescription& d) {
  if (architecture == Architecture::kEmo) return to_config_json(d);
  OrderedJson json = architecture_json(d);
  for (const char* key : {"auto_map", "num_shared_experts", "qk_norm", "dense_layers",
                          "dense_intermediate_size", "num_experts_per_layer"}) {
    json.erase(key);
  }
  if (architecture == Architecture::kOlmoe) {
    json["model_type"] = "olmoe";
    json["architectures"] = {"OlmoeForCausalLM"};
    json["clip_qkv"] = nullptr;
    return json;
  }
  json["model_type"] = "olmo2_noqknorm_prenorm";
  json["architectures"] = {"Olmo2NoQKNormPrenormForCausalLM"};
  json["intermediate_size"] = d.config.d_ffn;
  for (const char* key : {"num_experts", "num_experts_per_tok", "norm_topk_prob"}) json.erase(key);
  return json;
}

absl::StatusOr<Architecture> parse_architecture(const std::string& model_type) {
  if (model_type == "emo") return Architecture::kEmo;
  if (model_type == "olmoe") return Architecture::kOlmoe;
  if (model_type == "olmo2_noqknorm_prenorm") return Architecture::kDense;
  return absl::InvalidArgumentError(absl::StrCat(
      "model_type '", model_type, "' is not one of emo, olmoe and olmo2_noqknorm_prenorm"));
}

}  // namespace emo

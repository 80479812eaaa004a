#include "train/hugging_face.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace emo {
namespace {

constexpr char kContractKey[] = "emo_routing";

// Names of enum values in files, in the order of the values.
const std::vector<std::string> kConventions = {"previous", "next"};
const std::vector<std::string> kMasks = {"before_softmax", "after_softmax"};
const std::vector<std::string> kScores = {"masked", "full"};
const std::vector<std::string> kScopes = {"rank", "micro_batch", "global_batch"};
const std::vector<std::string> kDraws = {"per_layer", "per_document"};

template <typename Enum>
std::string name_of(Enum value, const std::vector<std::string>& names) {
  return names[static_cast<size_t>(value)];
}

template <typename Enum>
absl::Status read_name(const Json& object, const char* key, const std::vector<std::string>& names,
                       const std::string& where, Enum* value) {
  absl::StatusOr<std::string> name = json_field<std::string>(object, key, where);
  if (!name.ok()) return name.status();
  const auto found = std::find(names.begin(), names.end(), *name);
  if (found == names.end()) {
    return absl::DataLossError(absl::StrCat(where, ": ", key, " is '", *name, "'"));
  }
  *value = static_cast<Enum>(found - names.begin());
  return absl::OkStatus();
}

OrderedJson pool_json(const PoolPolicy& pool) {
  if (pool.kind == PoolPolicy::Kind::kNone) return "none";
  OrderedJson json = OrderedJson::object();
  if (pool.kind == PoolPolicy::Kind::kTopP) json["top_p"] = pool.top_p;
  json["min"] = pool.min;
  json["max"] = pool.max;
  json["eval"] = pool.eval ? OrderedJson(*pool.eval) : OrderedJson("none");
  return json;
}

absl::Status read_pool(const Json& json, const std::string& where, PoolPolicy* pool) {
  if (json.is_string() && json == "none") {
    pool->kind = PoolPolicy::Kind::kNone;
    return absl::OkStatus();
  }
  absl::StatusOr<int64_t> min = json_field<int64_t>(json, "min", where);
  if (!min.ok()) return min.status();
  absl::StatusOr<int64_t> max = json_field<int64_t>(json, "max", where);
  if (!max.ok()) return max.status();
  absl::StatusOr<double> top_p = json_field_or<double>(json, "top_p", 0, where);
  if (!top_p.ok()) return top_p.status();
  pool->kind = *top_p > 0 ? PoolPolicy::Kind::kTopP : PoolPolicy::Kind::kRange;
  pool->min = *min;
  pool->max = *max;
  pool->top_p = *top_p;
  if (json.contains("eval") && json["eval"].is_number_integer())
    pool->eval = json["eval"].get<int64_t>();
  return absl::OkStatus();
}

absl::Status read_contract(const Json& json, const std::string& where, ModelDescription* d) {
  RoutingContract& c = d->contract;
  absl::Status status =
      read_name(json, "eos_routes_with", kConventions, where, &d->eos_routes_with);
  status.Update(read_name(json, "mask", kMasks, where, &c.mask));
  status.Update(read_name(json, "balance_sees", kScores, where, &c.balance_sees));
  status.Update(read_name(json, "z_sees", kScores, where, &c.z_sees));
  status.Update(read_name(json, "balance_scope", kScopes, where, &c.balance_scope));
  status.Update(read_name(json, "pool_draw", kDraws, where, &c.pool_draw));
  const auto number = [&](const char* key, double* value) {
    absl::StatusOr<double> read = json_field<double>(json, key, where);
    status.Update(read.status());
    if (read.ok()) *value = *read;
  };
  number("balance_weight", &c.balance_weight);
  number("z_weight", &c.z_weight);
  absl::StatusOr<bool> confined = json_field<bool>(json, "document_attention", where);
  status.Update(confined.status());
  if (!status.ok()) return status;
  d->document_attention = *confined;
  return read_pool(json.value("pool", Json()), where + ": pool", &c.pool);
}

// Sizes that a model can have, so that nothing below has to ask.
absl::Status check_sizes(const ModelConfig& c, const std::string& where) {
  const bool moe = c.moe_layers() > 0;
  const bool possible = c.vocab_size > 1 && c.d_model > 0 && c.n_layers > 0 && c.n_heads > 0 &&
                        c.d_model % c.n_heads == 0 && c.head_dim() % 2 == 0 &&
                        (c.dense_layers.empty() || c.d_ffn > 0) &&
                        (!moe || (c.d_expert > 0 && c.num_shared_experts >= 0 &&
                                  c.top_k > c.num_shared_experts && c.num_experts >= c.top_k));
  const bool counts_fit =
      c.experts_per_layer.empty() || static_cast<int64_t>(c.experts_per_layer.size()) == c.n_layers;
  for (int64_t layer = 0; counts_fit && layer < c.n_layers; ++layer) {
    if (c.is_dense(layer)) continue;
    if (c.experts(layer) > c.num_shared_experts && c.experts(layer) <= c.num_experts) continue;
    return absl::DataLossError(absl::StrCat(where, ": num_experts_per_layer says ",
                                            c.experts(layer), " in layer ", layer, ", num_experts ",
                                            c.num_experts));
  }
  if (!counts_fit) {
    return absl::DataLossError(absl::StrCat(where, ": num_experts_per_layer has ",
                                            c.experts_per_layer.size(), " numbers for ", c.n_layers,
                                            " layers"));
  }
  if (possible) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      where, ": these sizes are not possible together: vocab_size ", c.vocab_size, ", hidden_size ",
      c.d_model, ", num_hidden_layers ", c.n_layers, ", num_attention_heads ", c.n_heads,
      ", intermediate_size ", c.d_expert, ", num_experts ", c.num_experts, ", num_shared_experts ",
      c.num_shared_experts, ", num_experts_per_tok ", c.top_k));
}

}  // namespace

void set_expert_counts(const ModelConfig& c, OrderedJson* json) {
  (*json)["num_experts"] = c.num_experts;
  (*json)["num_experts_per_tok"] = c.top_k;
  json->erase("num_experts_per_layer");
  if (!c.experts_per_layer.empty()) (*json)["num_experts_per_layer"] = c.experts_per_layer;
}

OrderedJson to_config_json(const ModelDescription& d) {
  const ModelConfig& c = d.config;
  const RoutingContract& r = d.contract;
  OrderedJson json = {{"model_type", "emo"},
                      {"architectures", {"EmoForCausalLM"}},
                      {"vocab_size", c.vocab_size},
                      {"hidden_size", c.d_model},
                      {"intermediate_size", c.d_expert},
                      {"num_hidden_layers", c.n_layers},
                      {"num_attention_heads", c.n_heads},
                      {"num_key_value_heads", c.n_heads},
                      {"hidden_act", "silu"},
                      {"max_position_embeddings", d.max_positions},
                      {"rms_norm_eps", c.norm_epsilon},
                      {"rope_theta", c.rope_theta},
                      {"rope_scaling", nullptr},
                      {"attention_bias", false},
                      {"attention_dropout", 0.0},
                      {"initializer_range", c.init_std},
                      {"tie_word_embeddings", false},
                      {"num_experts", c.num_experts},
                      {"num_experts_per_tok", c.top_k},
                      {"num_shared_experts", c.num_shared_experts},
                      {"norm_topk_prob", false},
                      {"pad_token_id", nullptr},
                      {"bos_token_id", nullptr},
                      {"eos_token_id", d.eos_id},
                      {"use_cache", true},
                      {"torch_dtype", "float32"}};
  set_expert_counts(c, &json);
  if (!c.dense_layers.empty()) {
    json["dense_layers"] = c.dense_layers;
    json["dense_intermediate_size"] = c.d_ffn;
  }
  json[kContractKey] = {{"eos_routes_with", name_of(d.eos_routes_with, kConventions)},
                        {"mask", name_of(r.mask, kMasks)},
                        {"balance_sees", name_of(r.balance_sees, kScores)},
                        {"z_sees", name_of(r.z_sees, kScores)},
                        {"balance_scope", name_of(r.balance_scope, kScopes)},
                        {"pool", pool_json(r.pool)},
                        {"pool_draw", name_of(r.pool_draw, kDraws)},
                        {"balance_weight", r.balance_weight},
                        {"z_weight", r.z_weight},
                        {"document_attention", d.document_attention}};
  return json;
}

absl::StatusOr<ModelDescription> read_config_json(const std::string& path) {
  absl::StatusOr<Json> json = read_json_file(path, 1u << 24);
  if (!json.ok()) return json.status();
  ModelDescription d;
  absl::Status status;
  const auto number = [&](const char* key, auto* value, auto fallback) {
    auto read = fallback ? json_field_or(*json, key, *value, path)
                         : json_field<std::remove_pointer_t<decltype(value)>>(*json, key, path);
    status.Update(read.status());
    if (read.ok()) *value = *read;
  };
  ModelConfig& c = d.config;
  number("vocab_size", &c.vocab_size, false);
  number("hidden_size", &c.d_model, false);
  number("intermediate_size", &c.d_expert, false);
  number("num_hidden_layers", &c.n_layers, false);
  number("num_attention_heads", &c.n_heads, false);
  number("num_experts", &c.num_experts, false);
  number("num_experts_per_tok", &c.top_k, false);
  number("num_shared_experts", &c.num_shared_experts, false);
  number("dense_intermediate_size", &c.d_ffn, true);
  number("rope_theta", &c.rope_theta, true);
  number("rms_norm_eps", &c.norm_epsilon, true);
  number("max_position_embeddings", &d.max_positions, true);
  number("eos_token_id", &d.eos_id, true);
  number("dense_layers", &c.dense_layers, true);
  if (json->contains("num_experts_per_layer") && !(*json)["num_experts_per_layer"].is_null()) {
    number("num_experts_per_layer", &c.experts_per_layer, false);
  }
  if (!status.ok()) return status;
  int64_t kv_heads = c.n_heads;
  number("num_key_value_heads", &kv_heads, true);
  int64_t above = -1;
  for (const int64_t layer : c.dense_layers) {
    if (layer <= above || layer >= c.n_layers) {
      status.Update(
          absl::DataLossError(path + ": dense_layers must ascend and be layers of the model"));
    }
    above = layer;
  }
  if (d.max_positions < 2 || d.max_positions > (1 << 24)) {
    status.Update(
        absl::DataLossError(absl::StrCat(path, ": max_position_embeddings ", d.max_positions)));
  }
  for (const char* key : {"norm_topk_prob", "tie_word_embeddings", "attention_bias"}) {
    if (json->contains(key) && (*json)[key] != false) {
      status.Update(absl::DataLossError(absl::StrCat(path, ": ", key, " must be false")));
    }
  }
  if (json->contains("rope_scaling") && !(*json)["rope_scaling"].is_null()) {
    status.Update(absl::DataLossError(path + ": rope_scaling is not supported"));
  }
  if (kv_heads != c.n_heads) {
    status.Update(absl::DataLossError(path + ": num_key_value_heads must be num_attention_heads"));
  }
  status.Update(check_sizes(c, path));
  if (!status.ok()) return status;
  d.contract.pool.kind = PoolPolicy::Kind::kNone;
  if (json->contains(kContractKey)) {
    status = read_contract((*json)[kContractKey], path + ": " + kContractKey, &d);
    if (!status.ok()) return status;
  }
  return d;
}

}  // namespace emo

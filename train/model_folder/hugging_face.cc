#include "train/model_folder/hugging_face.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "train/model_folder/description_fields.h"

namespace emo {
namespace {

constexpr char kContractKey[] = "emo_routing";
constexpr char kUnstated[] = "unstated";
constexpr int64_t kMostExperts = 1 << 16;  // of a layer, against hostile input

// Names of enum values in files, in the order of the values.
const std::vector<std::string> kConventions = {"previous", "next"};
const std::vector<std::string> kMasks = {"before_softmax", "after_softmax"};
const std::vector<std::string> kScores = {"masked", "full"};
const std::vector<std::string> kScopes = {"rank", "micro_batch", "global_batch", "document"};
const std::vector<std::string> kLossTokens = {"all", "labelled"};
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
  json["min"] = pool.min_by_layer.empty() ? OrderedJson(pool.min) : OrderedJson(pool.min_by_layer);
  json["max"] = pool.max;
  json["eval"] = pool.eval ? OrderedJson(*pool.eval) : OrderedJson("none");
  return json;
}

// One number, or a list with one for each layer.
absl::Status read_pool_min(const Json& json, const std::string& where, PoolPolicy* pool) {
  if (!json.contains("min") || !json["min"].is_array()) {
    absl::StatusOr<int64_t> min = json_field<int64_t>(json, "min", where);
    if (min.ok()) pool->min = *min;
    return min.status();
  }
  JsonFields fields(json, where);
  fields.optional("min", &pool->min_by_layer);
  if (!fields.status().ok()) return fields.status();
  const std::vector<int64_t>& minima = pool->min_by_layer;
  if (minima.empty()) return absl::DataLossError(absl::StrCat(where, ": min is an empty list"));
  pool->min = *std::min_element(minima.begin(), minima.end());
  return absl::OkStatus();
}

absl::Status read_pool(const Json& json, const std::string& where, PoolPolicy* pool) {
  if (json.is_string() && json == "none") {
    pool->kind = PoolPolicy::Kind::kNone;
    return absl::OkStatus();
  }
  absl::Status min = read_pool_min(json, where, pool);
  if (!min.ok()) return min;
  absl::StatusOr<int64_t> max = json_field<int64_t>(json, "max", where);
  if (!max.ok()) return max.status();
  absl::StatusOr<double> top_p = json_field_or<double>(json, "top_p", 0, where);
  if (!top_p.ok()) return top_p.status();
  pool->kind = *top_p > 0 ? PoolPolicy::Kind::kTopP : PoolPolicy::Kind::kRange;
  pool->max = *max;
  pool->top_p = *top_p;
  if (json.contains("eval") && json["eval"].is_number_integer())
    pool->eval = json["eval"].get<int64_t>();
  return absl::OkStatus();
}

// Steps of the schedule; none where the key is absent.
absl::Status read_pool_schedule(const Json& json, const std::string& where,
                                PoolSchedule* schedule) {
  if (!json.contains("pool_schedule")) return absl::OkStatus();
  absl::StatusOr<int64_t> steps =
      json_field<int64_t>(json["pool_schedule"], "steps", where + ": pool_schedule");
  if (!steps.ok()) return steps.status();
  if (*steps < 1) return absl::DataLossError(absl::StrCat(where, ": pool_schedule is empty"));
  schedule->steps = *steps;
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
  if (json.contains("losses_over")) {  // else all, as before there was a choice
    status.Update(read_name(json, "losses_over", kLossTokens, where, &c.losses_over));
  }
  const auto number = [&](const char* key, double* value) {
    absl::StatusOr<double> read = json_field<double>(json, key, where);
    status.Update(read.status());
    if (read.ok()) *value = *read;
  };
  number("balance_weight", &c.balance_weight);
  number("z_weight", &c.z_weight);
  if (json.contains("jitter")) number("jitter", &c.jitter);
  if (json.contains("bias_rate")) number("bias_rate", &c.bias_rate);
  absl::StatusOr<bool> confined = json_field<bool>(json, "document_attention", where);
  status.Update(confined.status());
  if (!status.ok()) return status;
  d->document_attention = *confined;
  status = read_pool(json.value("pool", Json()), where + ": pool", &c.pool);
  if (status.ok()) status = read_pool_schedule(json, where, &c.pool_schedule);
  const auto minima = static_cast<int64_t>(c.pool.min_by_layer.size());
  if (status.ok() && minima != 0 && minima != d->config.n_layers) {
    return absl::DataLossError(absl::StrCat(where, ": pool: min has ", minima, " entries for ",
                                            d->config.n_layers, " layers"));
  }
  return status;
}

// Which layers are dense: by `dense_layers`, or by a 0 in `num_experts_per_layer`.
void read_layers(JsonFields* fields, ModelConfig* c) {
  fields->optional("dense_layers", &c->dense_layers);
  int64_t above = -1;
  for (const int64_t layer : c->dense_layers) {
    if (layer <= above || layer >= c->n_layers) {
      fields->wrong("dense_layers must ascend and be layers of the model");
    }
    above = layer;
  }
  std::vector<int64_t> experts;
  fields->optional("num_experts_per_layer", &experts);
  if (experts.empty()) return;
  if (static_cast<int64_t>(experts.size()) != c->n_layers) {
    fields->wrong(absl::StrCat("num_experts_per_layer has ", experts.size(), " entries for ",
                               c->n_layers, " layers"));
    return;
  }
  const bool dense_stated = !c->dense_layers.empty();
  bool differ = false;
  for (int64_t layer = 0; layer < c->n_layers; ++layer) {
    const int64_t count = experts[layer];
    if (count == 0 && !dense_stated) c->dense_layers.push_back(layer);
    if (c->is_dense(layer) ? count != 0
                           : count <= c->num_shared_experts || count > c->num_experts) {
      fields->wrong(absl::StrCat("num_experts_per_layer says ", count, " in layer ", layer,
                                 ", num_experts ", c->num_experts));
    }
    differ = differ || (count != 0 && count != c->num_experts);
  }
  if (differ) c->experts_per_layer = std::move(experts);
}

// Every layer has the same shared experts; one without any is dense.
void refuse_other_shared_counts(const ModelConfig& c, JsonFields* fields) {
  std::vector<int64_t> counts;
  fields->optional("num_shared_experts_per_layer", &counts);
  for (const int64_t count : counts) {
    if (count == 0 || count == c.num_shared_experts) continue;
    fields->wrong(absl::StrCat("num_shared_experts_per_layer says ", count, ", num_shared_experts ",
                               c.num_shared_experts));
    return;
  }
}

// Sizes that a model can have, so that nothing below has to ask.
void check_sizes(const ModelConfig& c, JsonFields* fields) {
  const bool moe = c.moe_layers() > 0;
  const bool possible =
      (c.dense_layers.empty() || c.d_ffn > 0) &&
      (!moe || (c.d_expert > 0 && c.num_shared_experts >= 0 && c.top_k > c.num_shared_experts &&
                c.num_experts >= c.top_k && c.num_experts <= kMostExperts));
  if (possible) return;
  fields->wrong(absl::StrCat("these sizes are not possible together: intermediate_size ",
                             c.d_expert, ", dense_intermediate_size ", c.d_ffn, ", num_experts ",
                             c.num_experts, ", num_shared_experts ", c.num_shared_experts,
                             ", num_experts_per_tok ", c.top_k));
}

}  // namespace

void set_expert_counts(const ModelConfig& c, OrderedJson* json) {
  (*json)["num_experts"] = c.num_experts;
  (*json)["num_experts_per_tok"] = c.top_k;
  json->erase("num_experts_per_layer");
  if (c.experts_per_layer.empty() && c.dense_layers.empty()) return;
  OrderedJson counts = OrderedJson::array();
  for (int64_t layer = 0; layer < c.n_layers; ++layer) counts.push_back(c.experts(layer));
  (*json)["num_experts_per_layer"] = counts;
}

OrderedJson architecture_json(const ModelDescription& d) {
  const ModelConfig& c = d.config;
  OrderedJson json = {{"model_type", "emo"},
                      {"architectures", {"EmoForCausalLM"}},
                      {"auto_map",
                       {{"AutoConfig", "configuration_emo.EmoConfig"},
                        {"AutoModel", "modeling_emo.EmoModel"},
                        {"AutoModelForCausalLM", "modeling_emo.EmoForCausalLM"}}},
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
                      {"pad_token_id", nullptr},  // these three: see set_special_tokens()
                      {"bos_token_id", nullptr},
                      {"eos_token_id", nullptr},
                      {"use_cache", true},
                      {"torch_dtype", "float32"}};
  set_special_tokens(d, &json);
  set_expert_counts(c, &json);
  if (c.qk_norm) json["qk_norm"] = true;
  if (c.selection_bias) json["selection_bias"] = true;
  if (!c.dense_layers.empty()) {
    json["dense_layers"] = c.dense_layers;
    json["dense_intermediate_size"] = c.d_ffn;
  }
  return json;
}

OrderedJson to_config_json(const ModelDescription& d) {
  const RoutingContract& r = d.contract;
  OrderedJson json = architecture_json(d);
  if (!d.contract_stated) {
    json[kContractKey] = kUnstated;
    return json;
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
  if (r.losses_over != LossTokens::kAll) {
    json[kContractKey]["losses_over"] = name_of(r.losses_over, kLossTokens);
  }
  if (r.jitter > 0) json[kContractKey]["jitter"] = r.jitter;
  if (r.bias_rate > 0) json[kContractKey]["bias_rate"] = r.bias_rate;
  if (r.pool_schedule.steps > 0) {
    json[kContractKey]["pool_schedule"] = {{"steps", r.pool_schedule.steps}};
  }
  return json;
}

absl::StatusOr<ModelDescription> read_config_json(const std::string& path) {
  absl::StatusOr<Json> json = read_json_file(path, 1u << 24);
  if (!json.ok()) return json.status();
  JsonFields fields(*json, path);
  ModelDescription d;
  ModelConfig& c = d.config;
  std::string type = "emo";
  fields.optional("model_type", &type);
  // "flex_olmo_noqknorm_prenorm" is an older name of the same class (emo-facts 7.2).
  if (type != "emo" && type != "flex_olmo_noqknorm_prenorm") {
    return absl::DataLossError(
        absl::StrCat(path, ": model_type '", type, "'; 'emo import' takes over such a folder"));
  }
  fields.required("num_experts", &c.num_experts);
  fields.required("num_experts_per_tok", &c.top_k);
  fields.required("num_shared_experts", &c.num_shared_experts);
  fields.required("intermediate_size", &c.d_expert);
  fields.optional("dense_intermediate_size", &c.d_ffn);
  fields.optional("qk_norm", &c.qk_norm);
  fields.optional("selection_bias", &c.selection_bias);
  read_attention_and_sizes(&fields, &d);
  read_layers(&fields, &c);
  fields.refuse_unless_null("always_active_experts");
  fields.refuse_unless_null("always_active_experts_per_layer");
  fields.refuse_unless("dense_mlp_bias", false);
  fields.refuse_unless("ghost_extend_eval", false);
  refuse_other_shared_counts(c, &fields);
  if (fields.status().ok()) check_sizes(c, &fields);
  if (!fields.status().ok()) return fields.status();
  d.contract.pool.kind = PoolPolicy::Kind::kNone;
  d.contract_stated = json->contains(kContractKey) && (*json)[kContractKey] != kUnstated;
  if (d.contract_stated) {
    absl::Status status = read_contract((*json)[kContractKey], path + ": " + kContractKey, &d);
    if (!status.ok()) return status;
  }
  return d;
}

}  // namespace emo

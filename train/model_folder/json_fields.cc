#include "train/model_folder/json_fields.h"

#include "absl/strings/str_join.h"

namespace emo {
namespace {

constexpr int64_t kMostLayers = 1 << 14;  // against hostile input

// Written as rope_theta with rope_scaling, or (transformers 5) together as rope_parameters.
void read_rotary(JsonFields* fields, ModelConfig* c) {
  fields->optional("rope_theta", &c->rope_theta);
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    if (!fields->json().contains(key) || fields->json()[key].is_null()) continue;
    const Json& rope = fields->json()[key];
    if (!rope.is_object()) {
      fields->wrong(absl::StrCat(key, " is no object"));
      continue;
    }
    for (const char* kind : {"rope_type", "type"}) {
      if (rope.contains(kind) && rope[kind] != "default") {
        fields->wrong(absl::StrCat(key, ": ", rope[kind].dump(), " is not supported"));
      }
    }
    if (rope.contains("rope_theta") && rope["rope_theta"].is_number()) {
      c->rope_theta = rope["rope_theta"].get<double>();
    }
  }
}

}  // namespace

void JsonFields::refuse_unless(const char* key, const Json& value) {
  if (!json_.contains(key) || json_[key].is_null() || json_[key] == value) return;
  wrong(absl::StrCat(key, " is ", json_[key].dump().substr(0, 60), "; only ", value.dump(),
                     " is supported"));
}

void JsonFields::refuse_unless_null(const char* key) {
  if (!json_.contains(key) || json_[key].is_null()) return;
  wrong(absl::StrCat(key, " is ", json_[key].dump().substr(0, 60), ", which is not supported"));
}

absl::Status JsonFields::status() const {
  if (errors_.empty()) return absl::OkStatus();
  return absl::DataLossError(absl::StrJoin(errors_, "\n"));
}

void read_attention_and_sizes(JsonFields* fields, ModelDescription* d) {
  ModelConfig& c = d->config;
  fields->required("vocab_size", &c.vocab_size);
  fields->required("hidden_size", &c.d_model);
  fields->required("num_hidden_layers", &c.n_layers);
  fields->required("num_attention_heads", &c.n_heads);
  fields->optional("rms_norm_eps", &c.norm_epsilon);
  fields->optional("initializer_range", &c.init_std);
  fields->optional("max_position_embeddings", &d->max_positions);
  const Json& json = fields->json();
  if (json.contains("eos_token_id") && json["eos_token_id"].is_array()) {
    // Several stop tokens: the last one ends documents, as generation configs of EMO say it.
    if (!json["eos_token_id"].empty() && json["eos_token_id"].back().is_number_integer()) {
      d->eos_id = json["eos_token_id"].back().get<int32_t>();
    }
  } else {
    fields->optional("eos_token_id", &d->eos_id);
  }
  read_rotary(fields, &c);
  int64_t kv_heads = c.n_heads;
  fields->optional("num_key_value_heads", &kv_heads);
  if (kv_heads != c.n_heads) {
    fields->wrong(absl::StrCat("num_key_value_heads ", kv_heads, " with ", c.n_heads,
                               " heads: grouped queries are not supported"));
  }
  fields->refuse_unless("hidden_act", "silu");
  fields->refuse_unless("attention_bias", false);
  fields->refuse_unless("tie_word_embeddings", false);
  fields->refuse_unless("norm_topk_prob", false);
  fields->refuse_unless_null("clip_qkv");
  fields->refuse_unless_null("sliding_window");
  if (d->max_positions < 2 || d->max_positions > (1 << 24)) {
    fields->wrong(absl::StrCat("max_position_embeddings ", d->max_positions));
  }
  const bool possible = c.vocab_size > 1 && c.d_model > 0 && c.n_layers > 0 &&
                        c.n_layers <= kMostLayers && c.n_heads > 0 && c.d_model % c.n_heads == 0 &&
                        c.head_dim() % 2 == 0;
  if (!possible) {
    fields->wrong(absl::StrCat("these sizes are not possible together: vocab_size ", c.vocab_size,
                               ", hidden_size ", c.d_model, ", num_hidden_layers ", c.n_layers,
                               ", num_attention_heads ", c.n_heads));
    return;
  }
  int64_t head_dim = c.head_dim();
  fields->optional("head_dim", &head_dim);
  if (head_dim != c.head_dim()) {
    fields->wrong(absl::StrCat("head_dim ", head_dim, ": heads must share hidden_size evenly"));
  }
}

}  // namespace emo

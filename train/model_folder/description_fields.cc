#include "train/model_folder/description_fields.h"

#include <utility>

#include "absl/strings/str_cat.h"

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

// An id, or none where the key is null or missing; as it is where the key is wrong.
void read_id(JsonFields* fields, const char* key, std::optional<int64_t>* id) {
  if (!fields->json().contains(key)) return;
  if (fields->json()[key].is_null()) {
    id->reset();
    return;
  }
  int64_t stated = 0;
  fields->required(key, &stated);
  *id = stated;
}

void read_special_tokens(JsonFields* fields, ModelDescription* d) {
  read_id(fields, "pad_token_id", &d->pad_id);
  read_id(fields, "bos_token_id", &d->bos_id);
  const char* key = "eos_token_id";
  if (!fields->json().contains(key)) return;
  const Json& eos = fields->json()[key];
  std::vector<int64_t> ids;
  if (eos.is_number()) {
    ids.resize(1);
    fields->required(key, ids.data());
  } else if (!eos.is_null()) {
    fields->required(key, &ids);
  }
  d->stop_ids = ids;
  if (ids.empty()) return;
  // Of several, the last one ends documents, as generation configs of EMO say it. One that the
  // vocabulary does not have, as tiny models have it, ends nothing.
  if (!std::in_range<int32_t>(ids.back())) {
    fields->wrong(absl::StrCat(key, " ", ids.back()));
    return;
  }
  d->eos_id = static_cast<int32_t>(ids.back());
}

OrderedJson json_of(const std::optional<int64_t>& id) {
  return id ? OrderedJson(*id) : OrderedJson(nullptr);
}

}  // namespace

void read_attention_and_sizes(JsonFields* fields, ModelDescription* d) {
  ModelConfig& c = d->config;
  fields->required("vocab_size", &c.vocab_size);
  fields->required("hidden_size", &c.d_model);
  fields->required("num_hidden_layers", &c.n_layers);
  fields->required("num_attention_heads", &c.n_heads);
  fields->optional("rms_norm_eps", &c.norm_epsilon);
  fields->optional("initializer_range", &c.init_std);
  fields->optional("max_position_embeddings", &d->max_positions);
  read_special_tokens(fields, d);
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

void set_special_tokens(const ModelDescription& d, OrderedJson* json) {
  (*json)["pad_token_id"] = json_of(d.pad_id);
  (*json)["bos_token_id"] = json_of(d.bos_id);
  const std::vector<int64_t> stop = d.stop_ids.value_or(std::vector<int64_t>{d.eos_id});
  OrderedJson& eos = (*json)["eos_token_id"];
  if (stop.size() == 1) {
    eos = stop.front();
  } else {
    eos = stop.empty() ? OrderedJson(nullptr) : OrderedJson(stop);
  }
}

}  // namespace emo

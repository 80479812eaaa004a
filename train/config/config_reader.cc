// read_run_config of run_config.h: YAML into a RunConfig, and every error there is to find.
#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/program/closest_name.h"
#include "model/device/limits.h"
#include "model/router_jitter.h"
#include "train/config/config_fields.h"
#include "train/config/run_config.h"
#include "train/config/yaml_file.h"

namespace emo {
namespace {

// A value, and where it stands: "file:line:column" or "command line".
struct Entry {
  YAML::Node node;
  std::string place;
};

class Reader {
 public:
  Reader(std::map<std::string, Entry> entries, std::vector<std::string>* errors)
      : entries_(std::move(entries)), errors_(errors) {}

  bool section(const std::string& name) {
    section_ = name;
    return true;
  }
  bool absent(const char* key) { return !entries_.contains(path(key)); }

  template <typename T>
  void field(const char* key, T* value, Range range) {
    const Entry* entry = take(key);
    if (entry == nullptr) return;
    double number = 0;
    T parsed{};
    bool fits = entry->node.IsScalar();
    if constexpr (std::is_same_v<T, double>) {
      fits = fits && absl::SimpleAtod(entry->node.Scalar(), &parsed) && std::isfinite(parsed);
    } else {
      fits = fits && absl::SimpleAtoi(without_underscores(entry->node.Scalar()), &parsed);
    }
    if (!fits) return wrong(*entry, key, std::is_same_v<T, double> ? "a number" : "an integer");
    number = static_cast<double>(parsed);
    if (number < range.low || number > range.high) {
      error(*entry, absl::StrCat(path(key), " is ", entry->node.Scalar(), ", must be ",
                                 std::isfinite(range.high)
                                     ? absl::StrCat("from ", range.low, " to ", range.high)
                                     : absl::StrCat("at least ", range.low)));
      return;
    }
    *value = parsed;
  }
  void field(const char* key, bool* value) {
    const Entry* entry = take(key);
    if (entry == nullptr) return;
    const std::string text = entry->node.IsScalar() ? entry->node.Scalar() : "";
    if (text != "true" && text != "false") return wrong(*entry, key, "true or false");
    *value = text == "true";
  }
  void field(const char* key, std::string* value) {
    const Entry* entry = take(key);
    if (entry == nullptr) return;
    if (!entry->node.IsScalar()) return wrong(*entry, key, "text");
    *value = entry->node.Scalar();
  }
  void texts(const char* key, std::vector<std::string>* values) {
    const Entry* entry = take(key);
    if (entry == nullptr) return;
    values->clear();
    const bool is_list = entry->node.IsSequence();
    if (!entry->node.IsScalar() && !is_list) return wrong(*entry, key, "text, or a list of texts");
    if (!is_list) {
      if (!entry->node.Scalar().empty()) values->push_back(entry->node.Scalar());
      return;
    }
    for (const YAML::Node& item : entry->node) {
      values->push_back(item.IsScalar() ? item.Scalar() : "");
      if (values->back().empty()) return wrong(*entry, key, "text, or a list of texts");
    }
  }
  void names(const char* key, const Names& values, int* index) {
    const Entry* entry = take(key);
    if (entry == nullptr) return;
    const std::string text = entry->node.IsScalar() ? entry->node.Scalar() : "";
    for (size_t i = 0; i < values.size(); ++i) {
      if (values[i] == text) {
        *index = static_cast<int>(i);
        return;
      }
    }
    error(*entry, absl::StrCat(path(key), " is '", text, "', must be one of ",
                               absl::StrJoin(values, ", "), did_you_mean(text, values)));
  }
  void layers(const char* key, std::vector<int64_t>* layers, int64_t n_layers) {
    const Entry* entry = take(key);
    if (entry == nullptr) return;
    const std::string text = entry->node.IsScalar() ? entry->node.Scalar() : "";
    if (text == "none") return layers->clear();
    std::set<int64_t> chosen;
    if (text == "all") {
      for (int64_t layer = 0; layer < n_layers; ++layer) chosen.insert(layer);
    } else if (entry->node.IsSequence()) {
      for (const YAML::Node& item : entry->node) {
        int64_t layer = -1;
        if (!item.IsScalar() || !absl::SimpleAtoi(item.Scalar(), &layer) || layer < 0 ||
            layer >= n_layers) {
          return wrong(*entry, key, absl::StrCat("none, all, or layers from 0 to ", n_layers - 1));
        }
        chosen.insert(layer);
      }
    } else {
      return wrong(*entry, key, "none, all, or a list of layers");
    }
    layers->assign(chosen.begin(), chosen.end());
  }
  void counts(const char* key, std::vector<int64_t>* counts) {
    const Entry* entry = take(key);
    if (entry == nullptr) return;
    counts->clear();
    if (entry->node.IsScalar() && entry->node.Scalar() == "none") return;
    if (!read_counts(entry->node, counts)) {
      wrong(*entry, key, "none, or a list of numbers, one for each layer");
    }
  }
  void pool(const char* key, PoolPolicy* pool) {
    const Entry* entry = take(key);
    if (entry != nullptr && entry->node.IsScalar() && entry->node.Scalar() == "none") {
      pool->kind = PoolPolicy::Kind::kNone;
      pool->eval.reset();
      reject_children(key);
      return;
    }
    if (entry != nullptr && !entry->node.IsMap()) {
      return wrong(*entry, key, "none, {min, max, eval}, {fixed} or {top_p, min, max}");
    }
    const std::string outer = section_;
    section_ = path(key);
    const bool has_fixed = !absent("fixed");
    const bool has_top_p = !absent("top_p");
    for (const char* other : {"top_p", "min", "max"}) {
      if (has_fixed && !absent(other)) {
        error(entries_.at(path("fixed")),
              absl::StrCat(path("fixed"), " and ", other, " exclude each other"));
      }
    }
    int64_t fixed = 0;
    field("fixed", &fixed, {1, 1e6});
    field("top_p", &pool->top_p, {0, 1});
    pool_min(pool);
    field("max", &pool->max, {1, 1e6});
    if (has_fixed) pool->min = pool->max = fixed;
    pool->kind = has_top_p ? PoolPolicy::Kind::kTopP : PoolPolicy::Kind::kRange;
    pool->eval = (pool->min + pool->max) / 2;
    const auto eval = entries_.find(path("eval"));
    if (eval != entries_.end() && eval->second.node.IsScalar() &&
        eval->second.node.Scalar() == "none") {
      take("eval");
      pool->eval.reset();
    } else {
      int64_t size = *pool->eval;
      field("eval", &size, {1, 1e6});
      pool->eval = size;
    }
    section_ = outer;
  }
  void pool_schedule(const char* key, PoolSchedule* schedule) {
    const Entry* entry = take(key);
    if (entry != nullptr && entry->node.IsScalar() && entry->node.Scalar() == "none") {
      return reject_children(key);
    }
    if (entry != nullptr) return wrong(*entry, key, "none or {steps}");
    const std::string outer = section_;
    section_ = path(key);
    field("steps", &schedule->steps, {1, 1e12});
    section_ = outer;
  }
  void synthetic(const char* key, std::optional<SyntheticOptions>* options) {
    const Entry* entry = take(key);
    if (entry != nullptr && entry->node.IsScalar() && entry->node.Scalar() == "none") {
      return reject_children(key);
    }
    if (entry != nullptr && !entry->node.IsMap()) {
      return wrong(*entry, key,
                   "none or a map with vocab_size, topics, min_length, max_length, seed");
    }
    const std::string outer = section_;
    section_ = path(key);
    bool present = entry != nullptr;
    for (const auto& [name, unused] : entries_)
      present = present || name.rfind(section_ + ".", 0) == 0;
    if (present) {
      SyntheticOptions read;
      visit_synthetic(*this, read);
      *options = read;
    }
    section_ = outer;
  }

  // What no field asked for.
  void report_unknown() {
    for (const auto& item : entries_) {
      const std::string& name = item.first;
      const Entry& entry = item.second;
      const bool section = !absl::StrContains(name, '.') && entry.node.IsDefined() &&
                           (entry.node.IsNull() || (entry.node.IsMap() && entry.node.size() == 0));
      const bool known_section =
          std::any_of(asked_.begin(), asked_.end(),
                      [&](const std::string& key) { return key.rfind(name + ".", 0) == 0; });
      if (taken_.contains(name) || (section && known_section)) continue;
      error(entry, absl::StrCat("unknown key '", name, "'",
                                did_you_mean(name, {asked_.begin(), asked_.end()})));
    }
  }

  std::string place_of(const std::string& name) const {
    const auto found = entries_.find(name);
    return found == entries_.end() ? "" : found->second.place;
  }

 private:
  // Whether it is a list of numbers of 0 or more.
  static bool read_counts(const YAML::Node& node, std::vector<int64_t>* counts) {
    bool good = node.IsSequence();
    for (const YAML::Node& item : node) {
      counts->push_back(0);
      good = good && item.IsScalar() && absl::SimpleAtoi(item.Scalar(), &counts->back()) &&
             counts->back() >= 0;
    }
    return good;
  }
  // One number, or a list with one for each layer.
  void pool_min(PoolPolicy* pool) {
    const auto entry = entries_.find(path("min"));
    if (entry == entries_.end() || !entry->second.node.IsSequence()) {
      return field("min", &pool->min, {1, 1e6});
    }
    take("min");
    std::vector<int64_t> minima;
    if (!read_counts(entry->second.node, &minima) || minima.empty()) {
      return wrong(entry->second, "min", "a number, or a list of numbers, one for each layer");
    }
    pool->min = *std::min_element(minima.begin(), minima.end());
    pool->min_by_layer = std::move(minima);
  }
  std::string path(const std::string& key) const { return absl::StrCat(section_, ".", key); }
  static std::string without_underscores(std::string text) {  // 1_000_000
    std::erase(text, '_');
    return text;
  }
  const Entry* take(const char* key) {
    asked_.insert(path(key));
    const auto found = entries_.find(path(key));
    if (found == entries_.end()) return nullptr;
    taken_.insert(found->first);
    return &found->second;
  }
  void reject_children(const char* key) {
    for (const auto& [name, entry] : entries_) {
      if (name.rfind(path(key) + ".", 0) == 0 && taken_.insert(name).second) {
        error(entry, absl::StrCat(name, " has no meaning where ", path(key), " is none"));
      }
    }
  }
  void wrong(const Entry& entry, const char* key, const std::string& expected) {
    error(entry, absl::StrCat(path(key), " is ", found_in(entry.node), ", must be ", expected));
  }
  void error(const Entry& entry, const std::string& what) {
    errors_->push_back(absl::StrCat(entry.place, ": ", what));
  }

  std::map<std::string, Entry> entries_;
  std::vector<std::string>* errors_;
  std::set<std::string> asked_, taken_;
  std::string section_;
};

// Flattens maps into "a.b.c" entries; reports keys that stand twice in one map.
void flatten(const YAML::Node& node, const std::string& prefix, const std::string& file, int depth,
             std::map<std::string, Entry>* entries, std::vector<std::string>* errors) {
  for_each_item(
      node, file, errors,
      [&](const std::string& key, const YAML::Node& value, const std::string& place) {
        const std::string name = prefix + key;
        if (absl::StrContains(key, '.')) {
          errors->push_back(absl::StrCat(place, ": '", name, "': a key has no '.'; use a section"));
        } else if (depth > 4) {
          errors->push_back(absl::StrCat(place, ": '", name, "' is nested too deeply"));
        } else if (value.IsMap() && value.size() > 0) {
          flatten(value, name + ".", file, depth + 1, entries, errors);
        } else {
          (*entries)[name] = {value, place};
        }
      },
      prefix);
}

// Puts a value in the place of what the file says.
void apply_override(const Override& change, std::map<std::string, Entry>* entries,
                    std::vector<std::string>* errors) {
  const auto& [name, value, place] = change;
  absl::StatusOr<YAML::Node> parsed = parse_yaml(value);
  if (!parsed.ok()) {
    errors->push_back(absl::StrCat(place, ": ", parsed.status().message()));
    return;
  }
  const YAML::Node node = *parsed;
  // A map, and `none` for a map, replace what stood below the name.
  for (auto it = entries->begin(); it != entries->end();) {
    it = it->first.rfind(name + ".", 0) == 0 ? entries->erase(it) : std::next(it);
  }
  entries->erase(name);
  // A key below a name that was `none` gives the name a map.
  for (size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.', dot + 1)) {
    entries->erase(name.substr(0, dot));
  }
  if (node.IsMap() && node.size() > 0) {
    std::map<std::string, Entry> inner;
    flatten(node, name + ".", place, 1, &inner, errors);
    for (auto& [key, entry] : inner) (*entries)[key] = {entry.node, place};
  } else {
    (*entries)[name] = {node, place};
  }
}

// say(key, what) reports an error at the place of a key.
using Say = std::function<void(const char* key, const std::string& what)>;

// Budgets that differ by layer, as a cut model's do.
void check_experts_per_layer(const RunConfig& c, const Say& say) {
  const ModelConfig& m = c.model;
  if (m.experts_per_layer.empty()) return;
  const auto wrong = [&](auto&&... text) { say("model.experts_per_layer", absl::StrCat(text...)); };
  if (static_cast<int64_t>(m.experts_per_layer.size()) != m.n_layers) {
    return wrong(m.experts_per_layer.size(), " numbers of experts for ", m.n_layers, " layers");
  }
  int64_t most = 0;
  for (int64_t layer = 0; layer < m.n_layers; ++layer) {
    if (m.is_dense(layer)) continue;
    const int64_t experts = m.experts_per_layer[layer];
    most = std::max(most, experts);
    if (experts <= m.num_shared_experts || experts - m.num_shared_experts < c.parallel.ep) {
      wrong("layer ", layer, " has ", experts, " experts, ", m.num_shared_experts,
            " of them shared; it needs a routed one for each of parallel.ep = ", c.parallel.ep);
    }
  }
  if (most != m.num_experts) {
    wrong("the largest number is ", most, ", model.num_experts is ", m.num_experts);
  }
  if (c.routing.pool.kind != PoolPolicy::Kind::kNone) {
    say("routing.pool", "layers of different sizes have no common pool size: routing.pool=none");
  }
}

void check_pool_schedule(const RunConfig& c, const Say& say) {
  if (c.routing.pool_schedule.steps == 0 || c.routing.pool.kind == PoolPolicy::Kind::kRange) return;
  say("routing.pool_schedule.steps",
      "pool_schedule is of pools with a range of sizes, or a fixed one: top_p and no pools have "
      "none");
}

void check_pool(const RunConfig& c, const Say& say) {
  const ModelConfig& m = c.model;
  const PoolPolicy& pool = c.routing.pool;
  check_pool_schedule(c, say);
  if (pool.kind == PoolPolicy::Kind::kNone) return;
  int64_t largest_min = pool.min;
  for (const int64_t min : pool.min_by_layer) largest_min = std::max(largest_min, min);
  if (largest_min > pool.max) {
    say("routing.pool.min", absl::StrCat("pool min ", largest_min, " is above max ", pool.max));
  }
  const auto minima = static_cast<int64_t>(pool.min_by_layer.size());
  if (minima != 0 && minima != m.n_layers) {
    say("routing.pool.min", absl::StrCat(minima, " pool minima for ", m.n_layers, " layers"));
  }
  if (pool.min < m.routed_top_k()) {
    say("routing.pool.min", absl::StrCat("pool min ", pool.min, " is below the ", m.routed_top_k(),
                                         " routed experts that a token chooses (top_k - shared)"));
  }
  if (pool.max > m.num_experts) {
    say("routing.pool.max",
        absl::StrCat("pool max ", pool.max, " is above num_experts ", m.num_experts));
  }
  if (pool.eval && *pool.eval < m.routed_top_k()) {
    say("routing.pool.eval",
        absl::StrCat("pool eval ", *pool.eval, " is below ", m.routed_top_k()));
  }
}

void check_experts(const RunConfig& c, const Say& say) {
  const ModelConfig& m = c.model;
  if (m.moe_layers() == 0) {
    if (c.parallel.ep > 1) {
      say("parallel.ep", "a dense model has no experts to spread: ep must be 1");
    }
    return;
  }
  if (m.d_expert == 0) say("model.d_expert", "model.d_expert is not set");
  if (m.top_k <= m.num_shared_experts) {
    say("model.top_k",
        absl::StrCat("top_k ", m.top_k, " counts the shared experts, so it must be above ",
                     m.num_shared_experts));
  }
  if (m.num_experts < m.top_k) {
    say("model.num_experts",
        absl::StrCat("num_experts ", m.num_experts, " is below top_k ", m.top_k));
  }
  if (m.routed_experts() < c.parallel.ep) {
    say("parallel.ep", absl::StrCat(m.routed_experts(), " routed experts on ep ", c.parallel.ep,
                                    " ranks: each rank needs one"));
  }
  check_pool(c, say);
  if (c.routing.jitter > 0 && !jitter_fits(m)) {
    say("routing.jitter",
        "jitter is for models of less than 32768 layers and d_model up to 262144");
  }
}

void check_model(const RunConfig& c, const Say& say) {
  const ModelConfig& m = c.model;
  if (m.vocab_size == 0) say("model.vocab_size", "model.vocab_size is not set");
  if (m.d_model == 0 || m.n_layers == 0 || m.n_heads == 0) {
    say("model.d_model", "model.d_model, n_layers and n_heads must be set");
  } else if (m.d_model % m.n_heads != 0 || m.head_dim() % 2 != 0) {
    say("model.n_heads",
        absl::StrCat("d_model ", m.d_model, " over ", m.n_heads, " heads must give an even width"));
  }
  if (!m.dense_layers.empty() && m.d_ffn == 0) {
    say("model.d_ffn", "dense layers need model.d_ffn");
  }
  check_experts(c, say);
}

// What a device cannot do.
void check_device(const RunConfig& c, const Say& say) {
  if (c.parallel.device == DeviceKind::kCpu) return;
  const at::ScalarType type = c.parallel.precision == Precision::kBf16 ? at::kBFloat16 : at::kFloat;
  for (const Limit& limit :
       device::limits_of(c.model, type, c.parallel.device == DeviceKind::kCuda)) {
    say(("model." + limit.field).c_str(), limit.why);
  }
}

void check_data(const RunConfig& c, const Say& say) {
  const int given =
      (c.data.path.empty() ? 0 : 1) + (c.data.mix.empty() ? 0 : 1) + (c.data.synthetic ? 1 : 0);
  if (given != 1) say("data.path", "data needs one of path, mix and synthetic");
  if (!c.data.mix.empty() && c.data.eos_id < 0) {
    say("data.eos_id", "data.mix lists token files: data.eos_id says which token ends a document");
  }
  if (c.data.eos_id >= c.model.vocab_size) {
    say("data.eos_id", absl::StrCat("data.eos_id ", c.data.eos_id, " is outside a vocabulary of ",
                                    c.model.vocab_size));
  }
  if (c.data.order == Order::kReference && c.data.synthetic) {
    say("data.order", "data.order reference is of token files; synthetic documents have no end");
  }
  if (!c.data.synthetic) return;
  if (c.data.synthetic->min_length > c.data.synthetic->max_length) {
    say("data.synthetic.min_length", "synthetic min_length is above max_length");
  }
  if (c.data.synthetic->vocab_size > c.model.vocab_size) {
    say("data.synthetic.vocab_size",
        absl::StrCat("synthetic vocab_size ", c.data.synthetic->vocab_size,
                     " is above the model's ", c.model.vocab_size));
  }
}

void check_steps(const RunConfig& c, const Say& say) {
  if ((c.train.steps > 0) == (c.train.tokens > 0)) {
    say("train.steps", c.train.steps > 0
                           ? "train.steps and train.tokens are both given; set the other to 0"
                           : "train needs either steps or tokens");
  }
  if (c.train.batch == 0) {
    say("train.batch", "train.batch is not set");
  } else if (c.train.batch % c.train.micro_batches != 0) {
    say("train.micro_batches",
        absl::StrCat("batch ", c.train.batch, " is not divisible by micro_batches ",
                     c.train.micro_batches));
  } else if (c.train.batch / c.train.micro_batches * c.data.sequence_length > 0x7FFFFFFF) {
    say("train.batch", "a micro-batch of 2^31 tokens or more");
  }
}

// Checks that need several keys.
void check_together(const RunConfig& c, const Say& say) {
  check_experts_per_layer(c, say);
  if (c.run.folder.empty()) say("run.folder", "run.folder is not set");
  check_model(c, say);
  check_device(c, say);
  if (!c.run.experts.empty() && (c.run.start_from.empty() || c.run.take != Take::kWeights)) {
    say("run.experts",
        "run.experts needs run.start_from, and run.take weights: moments are of all experts");
  }
  if (c.eval.every > 0 && c.eval.data.empty() && c.eval.tasks.empty()) {
    say("eval.data",
        "eval.every asks for evaluation: eval.data must name a folder of emo prepare, or "
        "eval.tasks task files");
  }
  if (c.schedule.start == Schedule::Start::kCheckpoint &&
      (c.run.start_from.empty() || c.run.take != Take::kAll)) {
    say("schedule.start",
        "schedule.start checkpoint needs run.start_from, and run.take all: it goes on at its step");
  }
  check_data(c, say);
  check_steps(c, say);
}

}  // namespace

absl::StatusOr<Override> parse_override(const std::string& text) {
  const std::string place = absl::StrCat("command line: ", text);
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    return absl::InvalidArgumentError(place + ": an override is section.key=value");
  }
  return Override{text.substr(0, equals), text.substr(equals + 1), place};
}

absl::StatusOr<RunConfig> read_run_config(const std::string& path,
                                          const std::vector<std::string>& overrides) {
  std::vector<Override> changes;
  std::vector<std::string> errors;
  for (const std::string& text : overrides) {
    absl::StatusOr<Override> change = parse_override(text);
    if (change.ok()) {
      changes.push_back(*std::move(change));
    } else {
      errors.emplace_back(change.status().message());
    }
  }
  return read_overridden_config(path, changes, std::move(errors));
}

absl::StatusOr<RunConfig> read_overridden_config(const std::string& path,
                                                 const std::vector<Override>& overrides,
                                                 std::vector<std::string> errors) {
  absl::StatusOr<YAML::Node> root = load_yaml_map(path, "a config is a map of sections");
  if (!root.ok()) return root.status();
  std::map<std::string, Entry> entries;
  flatten(*root, "", path, 0, &entries, &errors);
  for (const Override& change : overrides) apply_override(change, &entries, &errors);

  RunConfig config;
  Reader reader(std::move(entries), &errors);
  visit_config(reader, config);
  reader.report_unknown();
  config.model.selection_bias = config.routing.bias_rate > 0 && config.model.moe_layers() > 0;
  check_together(config, [&](const char* key, const std::string& what) {
    const std::string place = reader.place_of(key);
    errors.push_back(absl::StrCat(place.empty() ? path : place, ": ", what));
  });
  if (errors.empty()) return config;
  return absl::InvalidArgumentError(absl::StrCat(
      "the config has ", errors.size(), errors.size() == 1 ? " error:\n  " : " errors:\n  ",
      absl::StrJoin(errors, "\n  ")));
}

}  // namespace emo

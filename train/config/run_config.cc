#include "train/config/run_config.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "train/config/config_fields.h"

namespace emo {
namespace {

// Collects "section.key" -> value as YAML text.
class Printer {
 public:
  std::vector<std::pair<std::string, std::string>> pairs;

  bool section(const std::string& name) {
    section_ = name;
    return true;
  }
  bool absent(const char*) const { return false; }
  template <typename T>
  void field(const char* key, T* value, Range) {
    put(key, absl::StrCat(*value));
  }
  void field(const char* key, double* value, Range) { put(key, number(*value)); }
  void field(const char* key, bool* value) { put(key, *value ? "true" : "false"); }
  void field(const char* key, std::string* value) { put(key, quoted(*value)); }
  // One text is written as such.
  void texts(const char* key, const std::vector<std::string>* values) {
    if (values->size() == 1) return put(key, quoted(values->front()));
    std::vector<std::string> all;
    for (const std::string& value : *values) all.push_back(quoted(value));
    put(key, all.empty() ? quoted("") : absl::StrCat("[", absl::StrJoin(all, ", "), "]"));
  }
  void names(const char* key, const Names& values, const int* index) {
    put(key, values[static_cast<size_t>(*index)]);
  }
  void pool(const char* key, PoolPolicy* pool) {
    const std::string eval = pool->eval ? absl::StrCat(*pool->eval) : "none";
    const std::string min = pool->min_by_layer.empty()
                                ? absl::StrCat(pool->min)
                                : absl::StrCat("[", absl::StrJoin(pool->min_by_layer, ", "), "]");
    if (pool->kind == PoolPolicy::Kind::kNone) {
      put(key, "none");
    } else if (pool->kind == PoolPolicy::Kind::kTopP) {
      put(key, absl::StrCat("{top_p: ", number(pool->top_p), ", min: ", min, ", max: ", pool->max,
                            ", eval: ", eval, "}"));
    } else {
      put(key, absl::StrCat("{min: ", min, ", max: ", pool->max, ", eval: ", eval, "}"));
    }
  }
  void pool_schedule(const char* key, PoolSchedule* schedule) {
    put(key, schedule->steps > 0 ? absl::StrCat("{steps: ", schedule->steps, "}") : "none");
  }
  void layers(const char* key, std::vector<int64_t>* layers, int64_t) {
    put(key, layers->empty() ? "none" : absl::StrCat("[", absl::StrJoin(*layers, ", "), "]"));
  }
  void counts(const char* key, std::vector<int64_t>* counts) { layers(key, counts, 0); }
  void synthetic(const char* key, std::optional<SyntheticOptions>* options) {
    if (!*options) return;
    Printer inner;
    visit_synthetic(inner, **options);
    put(key, absl::StrCat("{", absl::StrJoin(inner.pairs, ", ", absl::PairFormatter(": ")), "}"));
  }

 private:
  void put(const char* key, std::string value) {
    pairs.emplace_back(section_.empty() ? key : absl::StrCat(section_, ".", key), std::move(value));
  }
  // The shortest text that reads back to the same number.
  static std::string number(double value) {
    for (int digits = 6; digits < 17; ++digits) {
      char text[32];
      std::snprintf(text, sizeof text, "%.*g", digits, value);
      if (std::stod(text) == value) return text;
    }
    char text[32];
    std::snprintf(text, sizeof text, "%.17g", value);
    return text;
  }
  static std::string quoted(const std::string& text) {
    std::string out = "\"";
    for (const char c : text) {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
    return out + "\"";
  }
  std::string section_;
};

}  // namespace

int64_t RunConfig::total_steps() const {
  if (train.steps > 0) return train.steps;
  const int64_t tokens_per_step = train.batch * data.sequence_length;
  return (train.tokens + tokens_per_step - 1) / tokens_per_step;
}

uint64_t RunConfig::data_seed() const {
  return data.seed >= 0 ? static_cast<uint64_t>(data.seed) : run.seed;
}

RowsOptions RunConfig::rows() const {
  RowsOptions options;
  options.paths = data.path;
  options.mix = data.mix;
  options.names = {data.root, data.tokenizer_name};
  options.vocab_size = model.vocab_size;
  options.eos_id = data.eos_id;
  options.dtype = data.dtype;
  options.index = data.index;
  options.sequence_length = data.sequence_length;
  options.packing = data.documents;
  options.order = data.order;
  options.seed = data_seed();
  options.batch = train.batch;
  return options;
}

LoaderOptions RunConfig::loader() const {
  LoaderOptions options;
  options.sequence_length = data.sequence_length;
  options.order = data.order;
  options.seed = data_seed();
  options.document_attention = document_attention;
  options.eos_routes_with = eos_routes_with;
  if (data.repetition_filter) options.filter = InstanceFilter();
  return options;
}

std::vector<std::pair<std::string, std::string>> to_pairs(const RunConfig& config) {
  RunConfig copy = config;
  Printer printer;
  visit_config(printer, copy);
  return printer.pairs;
}

std::string to_yaml(const RunConfig& config) {
  std::string text;
  std::string section;
  for (const auto& [path, value] : to_pairs(config)) {
    const size_t dot = path.find('.');
    if (path.substr(0, dot) != section) {
      section = path.substr(0, dot);
      absl::StrAppend(&text, section, ":\n");
    }
    absl::StrAppend(&text, "  ", path.substr(dot + 1), ": ", value, "\n");
  }
  return text;
}

std::vector<std::string> differences_that_matter(
    const std::vector<std::pair<std::string, std::string>>& then,
    const std::vector<std::pair<std::string, std::string>>& now) {
  // Where it runs, not what it computes; the data is compared by its fingerprint.
  std::set<std::string> free = {
      "run.folder",          "run.start_from",     "run.take",        "run.change_contract",
      "run.change_data",     "data.path",          "data.mix",        "data.root",
      "data.tokenizer_name", "data.tokenizer",     "data.index",      "train.log_every",
      "parallel.ep",         "parallel.recompute", "parallel.slices", "parallel.placement",
      "parallel.zero",       "parallel.precision", "eval.every",      "eval.data",
      "eval.share",          "eval.tasks",         "eval.tokens",     "parallel.device",
      "checkpoint.every",    "checkpoint.keep",    "checkpoint.last"};
  // The length of the run is part of every schedule but the constant one.
  for (const auto& [key, value] : now) {
    if (key == "schedule.kind" && value == "constant") free.insert({"train.steps", "train.tokens"});
  }
  // A key that is younger than the checkpoint had its default.
  std::map<std::string, std::string> before;
  for (const auto& [key, value] : to_pairs(RunConfig())) before[key] = value;
  for (const auto& [key, value] : then) before[key] = value;
  // Where a config did not say the seed of the weights, older versions wrote 0; now it is run.seed.
  const std::map<std::string, std::string> is(now.begin(), now.end());
  const auto value_of = [&is](const char* key) {
    const auto found = is.find(key);
    return found == is.end() ? "" : found->second;
  };
  const bool older = std::none_of(then.begin(), then.end(),
                                  [](const auto& pair) { return pair.first == "checkpoint.last"; });
  if (older && before["model.init_seed"] == "0" &&
      value_of("model.init_seed") == value_of("run.seed")) {
    free.insert("model.init_seed");
  }
  std::vector<std::string> lines;
  for (const auto& [key, value] : now) {
    const auto found = before.find(key);
    const std::string old = found == before.end() ? "(absent)" : found->second;
    if (found != before.end()) before.erase(found);
    if (old != value && !free.contains(key)) {
      lines.push_back(absl::StrCat(key, ": was ", old, ", is ", value));
    }
  }
  for (const auto& [key, value] : before) {
    if (!free.contains(key)) lines.push_back(absl::StrCat(key, ": was ", value, ", is (absent)"));
  }
  return lines;
}

}  // namespace emo

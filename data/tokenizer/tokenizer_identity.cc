#include "data/tokenizer/tokenizer_identity.h"

#include <algorithm>

#include "data/files/file_system.h"
#include "data/files/json.h"
#include "data/files/sha256.h"

namespace emo {
namespace {

// Appends the steps of a normalizer or pre-tokenizer, sequences in sequences laid out flat, each
// with its defaults and without what no id depends on. `parts`: the key of a Sequence's list.
void append_steps(const Json& step, const char* parts, Json* steps) {
  if (step.is_null()) return;
  const std::string type = step.value("type", "");
  if (type == "Sequence" && step.contains(parts)) {
    for (const Json& part : step[parts]) append_steps(part, parts, steps);
    return;
  }
  Json plain = step;
  plain.erase("trim_offsets");  // of positions in the text
  if (type == "ByteLevel") {
    plain.emplace("add_prefix_space", false);
    plain.emplace("use_regex", true);
  }
  if (type == "Split") plain.emplace("invert", false);
  steps->push_back(plain);
}

Json steps_of(const Json& json, const char* key, const char* parts) {
  Json steps = Json::array();
  if (json.contains(key)) append_steps(json[key], parts, &steps);
  return steps;
}

// The model without options that say what their absence says; merges as pairs.
Json model_of(const Json& json) {
  Json model = json.at("model");
  for (const char* option : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
    const auto found = model.find(option);
    if (found != model.end() && (found->is_null() || *found == Json(""))) model.erase(found);
  }
  for (const char* option : {"byte_fallback", "fuse_unk", "ignore_merges"}) {
    model.emplace(option, false);
  }
  model.emplace("type", "BPE");
  model.emplace("unk_token", nullptr);
  if (!model.contains("merges")) return model;
  for (Json& merge : model["merges"]) {
    if (!merge.is_string()) continue;
    const std::string text = merge.get<std::string>();
    const size_t space = text.find(' ');
    if (space != std::string::npos) merge = {text.substr(0, space), text.substr(space + 1)};
  }
  return model;
}

// In order of ids. Whether a token is special shows in text only, never in ids.
Json added_tokens_of(const Json& json) {
  std::vector<Json> tokens;
  for (const Json& token : json.value("added_tokens", Json::array())) {
    Json plain = token;
    plain.erase("special");
    for (const char* option : {"lstrip", "normalized", "rstrip", "single_word"}) {
      plain.emplace(option, false);
    }
    if (steps_of(json, "normalizer", "normalizers").empty()) plain.erase("normalized");
    tokens.push_back(plain);
  }
  std::stable_sort(tokens.begin(), tokens.end(), [](const Json& a, const Json& b) {
    return a.at("id").get<int64_t>() < b.at("id").get<int64_t>();
  });
  return tokens;
}

}  // namespace

absl::StatusOr<TokenizerIdentity> identify_tokenizer(absl::string_view tokenizer_json,
                                                     const std::string& where) {
  const absl::StatusOr<Json> json = parse_json(tokenizer_json, where);
  if (!json.ok()) return json.status();
  try {
    const Json meaning = {{"model", model_of(*json)},
                          {"normalizer", steps_of(*json, "normalizer", "normalizers")},
                          {"pre_tokenizer", steps_of(*json, "pre_tokenizer", "pretokenizers")},
                          {"added_tokens", added_tokens_of(*json)}};
    return TokenizerIdentity{"v2:" + sha256_hex(meaning.dump()), sha256_hex(tokenizer_json)};
  } catch (const Json::exception& error) {
    return absl::DataLossError(absl::StrCat(where, ": is this a tokenizer.json? ", error.what()));
  }
}

absl::StatusOr<TokenizerIdentity> identify_tokenizer_file(const std::string& path) {
  absl::StatusOr<std::string> text = read_file(path, 1u << 28);
  if (!text.ok()) return text.status();
  return identify_tokenizer(*text, path);
}

bool same_tokenizer(const TokenizerIdentity& a, const TokenizerIdentity& b) {
  if (a.meaning.empty() || b.meaning.empty()) return a.bytes == b.bytes;
  return a.meaning == b.meaning;
}

}  // namespace emo

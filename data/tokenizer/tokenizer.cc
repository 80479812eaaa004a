#include "data/tokenizer/tokenizer.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "data/tokenizer/utf8.h"

namespace emo {
namespace {

constexpr int64_t kMaxVocabulary = 1 << 24;
constexpr size_t kCachedWords = 1 << 18;
constexpr size_t kCachedLength = 64;

// GPT-2's alphabet: each byte as a printable character, so that tokens can be written in JSON.
std::array<uint32_t, 256> byte_alphabet() {
  std::array<uint32_t, 256> alphabet{};
  uint32_t next = 256;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    alphabet[byte] = printable ? byte : next++;
  }
  return alphabet;
}

// The bytes that a token, written in GPT-2's alphabet, stands for; false for other characters.
bool token_bytes(const std::string& token, std::string* bytes) {
  static const auto inverse = [] {
    absl::flat_hash_map<uint32_t, uint8_t> map;
    const auto alphabet = byte_alphabet();
    for (uint32_t byte = 0; byte < 256; ++byte) map[alphabet[byte]] = static_cast<uint8_t>(byte);
    return map;
  }();
  bytes->clear();
  for (size_t at = 0; at < token.size();) {
    const auto found = inverse.find(next_code_point(token, &at));
    if (found == inverse.end()) return false;
    bytes->push_back(static_cast<char>(found->second));
  }
  return true;
}

// "a b" or ["a", "b"]: both stand in files.
absl::StatusOr<std::pair<std::string, std::string>> merge_pair(const Json& merge,
                                                               const std::string& where) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return std::make_pair(merge[0].get<std::string>(), merge[1].get<std::string>());
  }
  if (merge.is_string()) {
    const std::string text = merge.get<std::string>();
    const size_t space = text.find(' ');
    if (space != std::string::npos) {
      return std::make_pair(text.substr(0, space), text.substr(space + 1));
    }
  }
  return absl::DataLossError(where + ": merge " + merge.dump() + " is not a pair of tokens");
}

bool is_empty_normalizer(const Json& json) {
  if (!json.contains("normalizer") || json["normalizer"].is_null()) return true;
  const Json& normalizer = json["normalizer"];
  return normalizer.value("type", "") == "Sequence" &&
         normalizer.value("normalizers", Json(1)).empty();
}

}  // namespace

absl::StatusOr<Tokenizer> Tokenizer::from_file(const std::string& path) {
  absl::StatusOr<Json> json = read_json_file(path);
  if (!json.ok()) return json.status();
  return from_json(*json, path);
}

absl::StatusOr<Tokenizer> Tokenizer::from_json(const Json& json, const std::string& where) {
  try {
    return parse(json, where);
  } catch (const Json::exception& error) {  // a field of another JSON type than expected
    return absl::DataLossError(absl::StrCat(where, ": ", error.what()));
  }
}

absl::StatusOr<Tokenizer> Tokenizer::parse(const Json& json, const std::string& where) {
  for (const char* part : {"model", "pre_tokenizer"}) {
    if (!json.is_object() || !json.contains(part) || !json[part].is_object()) {
      return absl::DataLossError(
          absl::StrCat(where, ": no '", part, "'; is this a tokenizer.json?"));
    }
  }
  if (!is_empty_normalizer(json)) {
    return absl::DataLossError(absl::StrCat(
        where, ": normalizer ", json["normalizer"].dump().substr(0, 80), " is not supported"));
  }
  Tokenizer tokenizer;
  absl::StatusOr<PreTokenizer> pre_tokenizer =
      PreTokenizer::from_json(json["pre_tokenizer"], where + ": pre_tokenizer");
  if (!pre_tokenizer.ok()) return pre_tokenizer.status();
  tokenizer.pre_tokenizer_ = *std::move(pre_tokenizer);
  absl::Status status = tokenizer.read_model(json["model"], where + ": model");
  if (status.ok()) status = tokenizer.read_added_tokens(json, where + ": added_tokens");
  if (!status.ok()) return status;
  return tokenizer;
}

absl::Status Tokenizer::read_model(const Json& model, const std::string& where) {
  if (model.value("type", "BPE") != "BPE") {
    return absl::DataLossError(where + ": type is not BPE");
  }
  for (const char* part : {"vocab", "merges"}) {
    if (!model.contains(part)) return absl::DataLossError(absl::StrCat(where, ": no '", part, "'"));
  }
  if (!model["vocab"].is_object() || !model["merges"].is_array()) {
    return absl::DataLossError(where + ": 'vocab' must be an object and 'merges' a list");
  }
  for (const char* option : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
    const bool set =
        model.contains(option) && !model[option].is_null() && model[option] != Json("");
    if (set) return absl::DataLossError(absl::StrCat(where, ": ", option, " is not supported"));
  }
  if (model.value("byte_fallback", false)) {
    return absl::DataLossError(where + ": byte_fallback is not supported");
  }
  ignore_merges_ = model.value("ignore_merges", false);

  int64_t size = 0;
  for (const auto& [token, id] : model["vocab"].items()) {
    const bool usable =
        id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() < kMaxVocabulary;
    if (!usable) {
      return absl::DataLossError(absl::StrCat(where, ": token '", token, "' has id ", id.dump()));
    }
    size = std::max(size, id.get<int64_t>() + 1);
  }
  bytes_of_.resize(size);
  known_.resize(size);
  std::string bytes;
  for (const auto& [token, json_id] : model["vocab"].items()) {
    const auto id = json_id.get<int32_t>();
    if (known_[id]) return absl::DataLossError(absl::StrCat(where, ": id ", id, " stands twice"));
    known_[id] = true;
    id_of_[token] = id;
    // What is not in the alphabet (special tokens) is never the result of merging bytes.
    if (token_bytes(token, &bytes)) id_of_bytes_[bytes] = id;
    bytes_of_[id] = token_bytes(token, &bytes) ? bytes : token;
  }

  std::vector<int32_t> byte_ids(256);
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = id_of_bytes_.find(std::string(1, static_cast<char>(byte)));
    if (found == id_of_bytes_.end()) {
      return absl::DataLossError(
          absl::StrCat(where, ": vocab has no token for byte ", byte,
                       "; text with it would be lost (train with the byte-level alphabet)"));
    }
    byte_ids[byte] = found->second;
  }
  bpe_ = Bpe(byte_ids);
  for (const Json& merge : model["merges"]) {
    absl::StatusOr<std::pair<std::string, std::string>> pair = merge_pair(merge, where);
    if (!pair.ok()) return pair.status();
    for (const std::string& token : {pair->first, pair->second, pair->first + pair->second}) {
      if (!id_of_.contains(token)) {
        return absl::DataLossError(absl::StrCat(where, ": merge ", merge.dump(), " needs token '",
                                                token, "', which is not in vocab"));
      }
    }
    if (!bpe_.add_merge(id_of_[pair->first], id_of_[pair->second],
                        id_of_[pair->first + pair->second])) {
      return absl::DataLossError(absl::StrCat(where, ": merge ", merge.dump(), " stands twice"));
    }
  }
  return absl::OkStatus();
}

absl::Status Tokenizer::read_added_tokens(const Json& json, const std::string& where) {
  if (!json.contains("added_tokens")) return absl::OkStatus();
  for (const Json& token : json["added_tokens"]) {
    absl::StatusOr<std::string> content = json_field<std::string>(token, "content", where);
    if (!content.ok()) return content.status();
    absl::StatusOr<int32_t> id = json_field<int32_t>(token, "id", where);
    if (!id.ok()) return id.status();
    if (content->empty() || *id < 0 || *id >= kMaxVocabulary) {
      return absl::DataLossError(absl::StrCat(where, ": token ", token.dump(), " is not usable"));
    }
    for (const char* option : {"single_word", "lstrip", "rstrip"}) {
      if (token.value(option, false)) {
        return absl::DataLossError(
            absl::StrCat(where, ": ", option, " of '", *content, "' is not supported"));
      }
    }
    if (static_cast<size_t>(*id) >= bytes_of_.size()) {
      bytes_of_.resize(*id + 1);
      known_.resize(*id + 1);
    }
    bytes_of_[*id] = *content;
    known_[*id] = true;
    id_of_[*content] = *id;
    added_.push_back({*content, *id});
  }
  std::stable_sort(added_.begin(), added_.end(), [](const Added& a, const Added& b) {
    return a.content.size() > b.content.size();
  });
  return absl::OkStatus();
}

absl::Status Tokenizer::encode(absl::string_view text, std::vector<int32_t>* tokens,
                               Cache* cache) const {
  const size_t bad = first_invalid_utf8(text);
  if (bad != absl::string_view::npos) {
    return absl::DataLossError(absl::StrCat("invalid UTF-8 at byte ", bad));
  }
  // Cut at added tokens: the leftmost, and of those that start there the longest.
  bool starts[256] = {};
  for (const Added& added : added_) starts[static_cast<uint8_t>(added.content[0])] = true;
  size_t begin = 0;
  for (size_t at = 0; at < text.size(); ++at) {
    if (!starts[static_cast<uint8_t>(text[at])]) continue;
    for (const Added& added : added_) {
      if (text.substr(at, added.content.size()) != added.content) continue;
      absl::Status status = encode_plain(text.substr(begin, at - begin), tokens, cache);
      if (!status.ok()) return status;
      tokens->push_back(added.id);
      begin = at + added.content.size();
      at = begin - 1;
      break;
    }
  }
  return encode_plain(text.substr(begin), tokens, cache);
}

absl::Status Tokenizer::encode_plain(absl::string_view text, std::vector<int32_t>* tokens,
                                     Cache* cache) const {
  if (text.empty()) return absl::OkStatus();
  std::vector<absl::string_view> words;
  absl::Status status = pre_tokenizer_.split(text, &words);
  if (!status.ok()) return status;
  for (const absl::string_view word : words) {
    const auto cached = cache->find(word);
    if (cached != cache->end()) {
      tokens->insert(tokens->end(), cached->second.begin(), cached->second.end());
      continue;
    }
    const size_t first = tokens->size();
    const auto whole = ignore_merges_ ? id_of_bytes_.find(word) : id_of_bytes_.end();
    if (whole != id_of_bytes_.end()) {
      tokens->push_back(whole->second);
    } else {
      bpe_.encode(word, tokens);
    }
    if (word.size() <= kCachedLength && cache->size() < kCachedWords) {
      cache->emplace(
          std::string(word),
          std::vector<int32_t>(tokens->begin() + static_cast<int64_t>(first), tokens->end()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Tokenizer::decode(const std::vector<int32_t>& tokens) const {
  std::string text;
  for (const int32_t id : tokens) {
    if (id < 0 || id >= vocab_size() || !known_[id]) {
      return absl::InvalidArgumentError(absl::StrCat("no token has id ", id));
    }
    text += bytes_of_[id];
  }
  return text;
}

int32_t Tokenizer::id_of(const std::string& token) const {
  const auto found = id_of_.find(token);
  return found == id_of_.end() ? -1 : found->second;
}

absl::StatusOr<int32_t> Tokenizer::eos_id(const std::string& name) const {
  const std::vector<std::string> names =
      name.empty() ? std::vector<std::string>{"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"}
                   : std::vector<std::string>{name};
  for (const std::string& candidate : names) {
    if (id_of(candidate) >= 0) return id_of(candidate);
  }
  return absl::InvalidArgumentError(
      name.empty()
          ? "the tokenizer has none of the usual end-of-document tokens; name one with --eos"
          : "the tokenizer has no token '" + name + "'");
}

}  // namespace emo

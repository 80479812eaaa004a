#include "data/shards/dataset_info.h"

#include <type_traits>

#include "absl/strings/str_cat.h"
#include "data/files/file_system.h"
#include "data/files/json.h"
#include "data/files/sha256.h"

namespace emo {
namespace {

constexpr char kFormat[] = "emo-tokens-1";
constexpr int64_t kMostTokens = int64_t{1} << 56;  // of a shard
constexpr uint64_t kMostBytes = uint64_t{256} << 20;

absl::StatusOr<DatasetInfo> from_json(const Json& json, const std::string& where) {
  DatasetInfo info;
  absl::Status status;
  const auto read = [&](auto* field, const char* key) {
    auto value = json_field<std::remove_pointer_t<decltype(field)>>(json, key, where);
    if (value.ok()) {
      *field = *std::move(value);
    } else {
      status.Update(value.status());
    }
  };
  std::string format;
  read(&format, "format");
  if (status.ok() && format != kFormat) {
    return absl::DataLossError(absl::StrCat(where, ": format '", format, "', expected ", kFormat));
  }
  read(&info.dtype, "dtype");
  read(&info.vocab_size, "vocab_size");
  read(&info.eos_id, "eos_id");
  read(&info.tokenizer.bytes, "tokenizer_sha256");
  if (json.contains("tokenizer_identity")) read(&info.tokenizer.meaning, "tokenizer_identity");
  read(&info.sources, "sources");
  std::vector<Json> shards;
  read(&shards, "shards");
  for (const Json& shard : shards) {
    absl::StatusOr<std::string> name = json_field<std::string>(shard, "name", where);
    absl::StatusOr<int64_t> tokens = json_field<int64_t>(shard, "tokens", where);
    absl::StatusOr<int64_t> documents = json_field<int64_t>(shard, "documents", where);
    absl::StatusOr<std::string> hash = json_field<std::string>(shard, "sha256", where);
    absl::StatusOr<std::string> index_hash =
        json_field_or<std::string>(shard, "index_sha256", "", where);
    for (const absl::Status& part :
         {name.status(), tokens.status(), documents.status(), hash.status(), index_hash.status()}) {
      status.Update(part);
    }
    if (!status.ok()) return status;
    const bool plain = name->find('/') == std::string::npos;
    if (!plain || *tokens < 0 || *documents < 0 || *documents > *tokens || *tokens > kMostTokens) {
      return absl::DataLossError(where + ": shard " + shard.dump() + " is not possible");
    }
    info.shards.push_back({*name, *tokens, *documents, *hash, *index_hash});
  }
  if (!status.ok()) return status;
  if (info.vocab_size < 2 || info.vocab_size > INT32_MAX || info.eos_id < 0 ||
      info.eos_id >= info.vocab_size) {
    return absl::DataLossError(absl::StrCat(where, ": a vocabulary of ", info.vocab_size,
                                            " and end token ", info.eos_id, " are not possible"));
  }
  if (info.dtype != "uint16" && info.dtype != "uint32") {
    return absl::DataLossError(where + ": dtype '" + info.dtype + "', expected uint16 or uint32");
  }
  return info;
}

// Completes what version 0.1.0 wrote by the folder's copy of the tokenizer, if that is still the
// one.
absl::Status complete_identity(const std::string& folder, TokenizerIdentity* identity) {
  const std::string path = folder + "/tokenizer.json";
  if (!identity->meaning.empty() || !path_exists(path)) return absl::OkStatus();
  absl::StatusOr<std::string> text = read_file(path, 1u << 28);
  if (!text.ok()) return text.status();
  if (sha256_hex(*text) != identity->bytes) return absl::OkStatus();
  absl::StatusOr<TokenizerIdentity> whole = identify_tokenizer(*text, path);
  if (!whole.ok()) return whole.status();
  *identity = *std::move(whole);
  return absl::OkStatus();
}

}  // namespace

std::string to_json(const DatasetInfo& info) {
  OrderedJson shards = OrderedJson::array();
  int64_t tokens = 0;
  int64_t documents = 0;
  for (const DatasetInfo::Shard& shard : info.shards) {
    shards.push_back({{"name", shard.name},
                      {"tokens", shard.tokens},
                      {"documents", shard.documents},
                      {"sha256", shard.sha256}});
    if (!shard.index_sha256.empty()) shards.back()["index_sha256"] = shard.index_sha256;
    tokens += shard.tokens;
    documents += shard.documents;
  }
  const OrderedJson json = {{"format", kFormat},
                            {"dtype", info.dtype},
                            {"vocab_size", info.vocab_size},
                            {"eos_id", info.eos_id},
                            {"tokenizer_identity", info.tokenizer.meaning},
                            {"tokenizer_sha256", info.tokenizer.bytes},
                            {"tokens", tokens},
                            {"documents", documents},
                            {"sources", info.sources},
                            {"shards", shards}};
  return to_text(json);
}

int64_t dtype_bytes(const DatasetInfo& info) { return info.dtype == "uint16" ? 2 : 4; }

absl::StatusOr<DatasetInfo> parse_dataset_info(const std::string& text, const std::string& where) {
  absl::StatusOr<Json> json = parse_json(text, where);
  if (!json.ok()) return json.status();
  return from_json(*json, where);
}

absl::StatusOr<DatasetInfo> read_dataset_info(const std::string& folder) {
  const std::string path = folder + "/dataset.json";
  if (!path_exists(path)) {
    return absl::NotFoundError(folder +
                               ": no dataset.json; is this a folder that emo prepare wrote?");
  }
  absl::StatusOr<std::string> text = read_file(path, kMostBytes);
  if (!text.ok()) return text.status();
  absl::StatusOr<DatasetInfo> info = parse_dataset_info(*text, path);
  if (!info.ok()) return info.status();
  absl::Status completed = complete_identity(folder, &info->tokenizer);
  if (!completed.ok()) return completed;
  return info;
}

}  // namespace emo

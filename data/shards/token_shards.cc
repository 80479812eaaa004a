#include "data/shards/token_shards.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "data/files/json.h"
#include "data/files/sha256.h"

namespace emo {
namespace {

constexpr char kFormat[] = "emo-tokens-1";
constexpr size_t kBuffer = 1 << 20;

std::string to_json(const DatasetInfo& info) {
  OrderedJson shards = OrderedJson::array();
  int64_t tokens = 0;
  int64_t documents = 0;
  for (const DatasetInfo::Shard& shard : info.shards) {
    shards.push_back({{"name", shard.name},
                      {"tokens", shard.tokens},
                      {"documents", shard.documents},
                      {"sha256", shard.sha256}});
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
    for (const absl::Status& part :
         {name.status(), tokens.status(), documents.status(), hash.status()}) {
      status.Update(part);
    }
    if (!status.ok()) return status;
    const bool plain = name->find('/') == std::string::npos;
    if (!plain || *tokens < 0 || *documents < 0) {
      return absl::DataLossError(where + ": shard " + shard.dump() + " is not possible");
    }
    info.shards.push_back({*name, *tokens, *documents, *hash});
  }
  if (!status.ok()) return status;
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

int64_t dtype_bytes(const DatasetInfo& info) { return info.dtype == "uint16" ? 2 : 4; }

}  // namespace

struct ShardWriter::Open {
  std::unique_ptr<WritableFile> tokens, index, ids;
  std::string token_buffer, index_buffer, id_buffer;
  DatasetInfo::Shard shard;
  Sha256 token_hash;

  absl::Status flush(size_t above) {
    const std::pair<WritableFile*, std::string*> pairs[] = {
        {tokens.get(), &token_buffer}, {index.get(), &index_buffer}, {ids.get(), &id_buffer}};
    for (const auto& [file, buffer] : pairs) {
      if (file == nullptr || buffer->size() <= above) continue;
      if (file == tokens.get()) token_hash.update(*buffer);
      absl::Status status = file->append(*buffer);
      if (!status.ok()) return status;
      buffer->clear();
    }
    return absl::OkStatus();
  }
};

ShardWriter::ShardWriter(FileSystem& fs, std::string folder, DatasetInfo info,
                         int64_t tokens_per_shard, bool with_ids)
    : fs_(fs),
      folder_(std::move(folder)),
      info_(std::move(info)),
      tokens_per_shard_(tokens_per_shard),
      with_ids_(with_ids) {
  info_.dtype = info_.vocab_size <= 65536 ? "uint16" : "uint32";
}
ShardWriter::~ShardWriter() = default;

absl::Status ShardWriter::open_shard() {
  open_ = std::make_unique<Open>();
  open_->shard.name = absl::StrFormat("tokens-%05d", info_.shards.size());
  const std::string path = folder_ + "/" + open_->shard.name;
  const std::pair<std::unique_ptr<WritableFile>*, const char*> files[] = {
      {&open_->tokens, ".npy"}, {&open_->index, ".index"}, {&open_->ids, ".ids"}};
  for (const auto& [file, suffix] : files) {
    if (file == &open_->ids && !with_ids_) continue;
    absl::StatusOr<std::unique_ptr<WritableFile>> created =
        fs_.create(path + suffix, Writing::kPrompt);
    if (!created.ok()) return created.status();
    *file = *std::move(created);
  }
  return absl::OkStatus();
}

absl::Status ShardWriter::close_shard() {
  absl::Status status = open_->flush(0);
  for (WritableFile* file : {open_->tokens.get(), open_->index.get(), open_->ids.get()}) {
    if (file == nullptr) continue;
    if (status.ok()) status = file->sync();
    if (status.ok()) status = file->close();
  }
  open_->shard.sha256 = open_->token_hash.hex_digest();
  info_.shards.push_back(open_->shard);
  open_.reset();
  return status;
}

uint32_t ShardWriter::source_index(const std::string& source) {
  const auto found = std::find(info_.sources.begin(), info_.sources.end(), source);
  if (found == info_.sources.end()) info_.sources.push_back(source);
  return static_cast<uint32_t>(std::find(info_.sources.begin(), info_.sources.end(), source) -
                               info_.sources.begin());
}

absl::Status ShardWriter::append(const std::vector<int32_t>& tokens, uint64_t bytes,
                                 const std::string& source, const std::string& id,
                                 uint32_t context) {
  const auto count = static_cast<int64_t>(tokens.size());
  if (open_ != nullptr && open_->shard.tokens + count > tokens_per_shard_) {
    absl::Status status = close_shard();
    if (!status.ok()) return status;
  }
  if (open_ == nullptr) {
    absl::Status status = open_shard();
    if (!status.ok()) return status;
  }
  Open& open = *open_;
  for (const int32_t token : tokens) {
    if (info_.dtype == "uint16") {
      const auto narrow = static_cast<uint16_t>(token);
      open.token_buffer.append(reinterpret_cast<const char*>(&narrow), 2);
    } else {
      open.token_buffer.append(reinterpret_cast<const char*>(&token), 4);
    }
  }
  open.shard.tokens += count;
  open.shard.documents += 1;
  const DocumentRecord record{static_cast<uint64_t>(open.shard.tokens), bytes, source_index(source),
                              context};
  open.index_buffer.append(reinterpret_cast<const char*>(&record), sizeof record);
  if (with_ids_) open.id_buffer += absl::StrReplaceAll(id, {{"\n", " "}}) + "\n";
  return open.flush(kBuffer);
}

absl::StatusOr<DatasetInfo> ShardWriter::finish() {
  if (open_ != nullptr) {
    absl::Status status = close_shard();
    if (!status.ok()) return status;
  }
  absl::Status status = write_file_durably(fs_, folder_ + "/dataset.json", to_json(info_));
  if (!status.ok()) return status;
  return info_;
}

absl::StatusOr<DatasetInfo> read_dataset_info(const std::string& folder) {
  const std::string path = folder + "/dataset.json";
  if (!path_exists(path)) {
    return absl::NotFoundError(folder +
                               ": no dataset.json; is this a folder that emo prepare wrote?");
  }
  absl::StatusOr<Json> json = read_json_file(path);
  if (!json.ok()) return json.status();
  absl::StatusOr<DatasetInfo> info = from_json(*json, path);
  if (!info.ok()) return info.status();
  absl::Status completed = complete_identity(folder, &info->tokenizer);
  if (!completed.ok()) return completed;
  return info;
}

absl::StatusOr<TokenDataset> TokenDataset::open(const std::string& folder) {
  absl::StatusOr<DatasetInfo> info = read_dataset_info(folder);
  if (!info.ok()) return info.status();
  TokenDataset dataset;
  dataset.folder_ = folder;
  dataset.info_ = *std::move(info);
  for (const DatasetInfo::Shard& shard : dataset.info_.shards) {
    const std::string stem = folder + "/" + shard.name;
    const int64_t width = dtype_bytes(dataset.info_);
    absl::StatusOr<TokenFile> tokens = TokenFile::open_headerless(stem + ".npy", width);
    if (!tokens.ok()) return tokens.status();
    absl::StatusOr<MappedFile> index = MappedFile::open(stem + ".index");
    if (!index.ok()) return index.status();
    const auto check = [](const std::string& file, int64_t bytes, int64_t expected) {
      if (bytes == expected) return absl::OkStatus();
      return absl::DataLossError(absl::StrCat(file, ": ", bytes, " bytes, expected ", expected,
                                              "; truncated or changed since emo prepare"));
    };
    absl::Status status = check(tokens->path(), tokens->bytes(), shard.tokens * width);
    if (status.ok()) {
      status = check(index->path(), static_cast<int64_t>(index->bytes().size()),
                     shard.documents * static_cast<int64_t>(sizeof(DocumentRecord)));
    }
    if (!status.ok()) return status;
    dataset.shards_.push_back({*std::move(tokens), *std::move(index)});

    const auto number = static_cast<int64_t>(dataset.shards_.size()) - 1;
    uint64_t end = 0;
    for (int64_t d = 0; d < shard.documents; ++d) {
      const DocumentRecord& record = dataset.index(number)[d];
      if (record.end <= end || record.source >= dataset.info_.sources.size() ||
          record.context >= record.end - end) {
        return absl::DataLossError(
            absl::StrCat(stem, ".index: record of document ", d, " is damaged"));
      }
      end = record.end;
    }
    if (end != static_cast<uint64_t>(shard.tokens)) {
      return absl::DataLossError(
          absl::StrCat(stem, ".index: documents end at token ", end, " of ", shard.tokens));
    }
  }
  return dataset;
}

const DocumentRecord* TokenDataset::index(int64_t shard) const {
  return reinterpret_cast<const DocumentRecord*>(shards_[shard].index.bytes().data());
}

absl::Status TokenDataset::read(int64_t shard, int64_t begin, int64_t count,
                                int32_t* tokens) const {
  thread_local std::string bytes;
  // Any id: that one is too large is told with its document, below.
  absl::Status status =
      shards_[shard].tokens.read(begin, count, std::numeric_limits<int64_t>::max(), tokens, &bytes);
  if (!status.ok()) return status;
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, static_cast<uint32_t>(tokens[i]));
  if (static_cast<int64_t>(largest) < info_.vocab_size) return absl::OkStatus();
  for (int64_t i = 0; i < count; ++i) {
    if (static_cast<int64_t>(static_cast<uint32_t>(tokens[i])) < info_.vocab_size) continue;
    const DocumentRecord* first = index(shard);
    const auto* record = std::upper_bound(
        first, first + documents(shard), static_cast<uint64_t>(begin + i),
        [](uint64_t at, const DocumentRecord& candidate) { return at < candidate.end; });
    return absl::DataLossError(
        absl::StrCat(shards_[shard].tokens.path(), ": token ", static_cast<uint32_t>(tokens[i]),
                     " at offset ", begin + i, " (document ", record - first,
                     "), expected below the vocabulary's ", info_.vocab_size));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> TokenDataset::document_ids(int64_t shard) const {
  const std::string path = folder_ + "/" + info_.shards[shard].name + ".ids";
  if (!path_exists(path)) {
    std::vector<std::string> numbers;
    for (int64_t d = 0; d < documents(shard); ++d) {
      numbers.push_back(absl::StrCat(info_.shards[shard].name, ":", d));
    }
    return numbers;
  }
  absl::StatusOr<std::string> text = read_file(path, uint64_t{1} << 36);
  if (!text.ok()) return text.status();
  std::vector<std::string> ids = absl::StrSplit(*text, '\n');
  ids.pop_back();  // behind the last newline
  if (static_cast<int64_t>(ids.size()) != documents(shard)) {
    return absl::DataLossError(
        absl::StrCat(path, ": ", ids.size(), " ids, expected ", documents(shard)));
  }
  return ids;
}

}  // namespace emo

#include "data/shards/token_dataset.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "data/files/file_system.h"

namespace emo {

absl::StatusOr<PreparedShard> open_prepared_shard(const std::string& folder,
                                                  const DatasetInfo& info, int64_t number,
                                                  const OpenReadable& open) {
  const DatasetInfo::Shard& shard = info.shards[number];
  const std::string stem = absl::StrCat(folder, "/", shard.name);
  const int64_t width = dtype_bytes(info);
  absl::StatusOr<TokenFile> tokens = TokenFile::open_headerless(stem + ".npy", width, open);
  if (!tokens.ok()) return tokens.status();
  absl::StatusOr<std::unique_ptr<ReadableFile>> records = open(stem + ".index");
  if (!records.ok()) return records.status();
  const auto check = [](const std::string& file, int64_t bytes, int64_t expected) {
    if (bytes == expected) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat(file, ": ", bytes, " bytes, expected ", expected,
                                            "; truncated or changed since emo prepare"));
  };
  absl::Status status = check(tokens->path(), tokens->bytes(), shard.tokens * width);
  if (status.ok()) {
    status = check((*records)->path(), (*records)->size(),
                   shard.documents * static_cast<int64_t>(sizeof(DocumentRecord)));
  }
  if (!status.ok()) return status;
  absl::StatusOr<DocumentIndex> documents = DocumentIndex::open(
      *std::move(records), {DocumentIndex::Records::kWhole, 0, shard.documents, shard.tokens,
                            static_cast<int64_t>(info.sources.size()), shard.index_sha256});
  if (!documents.ok()) return documents.status();
  return PreparedShard{*std::move(tokens), *std::move(documents)};
}

absl::StatusOr<TokenDataset> TokenDataset::open(const std::string& folder) {
  absl::StatusOr<DatasetInfo> info = read_dataset_info(folder);
  if (!info.ok()) return info.status();
  TokenDataset dataset;
  dataset.folder_ = folder;
  dataset.info_ = *std::move(info);
  for (size_t i = 0; i < dataset.info_.shards.size(); ++i) {
    absl::StatusOr<PreparedShard> shard =
        open_prepared_shard(folder, dataset.info_, static_cast<int64_t>(i));
    if (!shard.ok()) return shard.status();
    std::vector<StoredDocument> documents;
    documents.reserve(static_cast<size_t>(shard->documents.documents()));
    absl::Status status =
        shard->documents.read(0, shard->documents.documents(),
                              [&](const StoredDocument& each) { documents.push_back(each); });
    if (!status.ok()) return status;
    dataset.shards_.push_back({std::move(shard->tokens), std::move(documents)});
  }
  return dataset;
}

absl::Status TokenDataset::read(int64_t shard, int64_t begin, int64_t count,
                                int32_t* tokens) const {
  thread_local std::string bytes;
  absl::Status status = shards_[shard].tokens.read(begin, count, info_.vocab_size, tokens, &bytes);
  if (status.ok()) return status;
  const int64_t at = begin + first_beyond(info_.vocab_size, tokens, count);
  if (at == begin + count) return status;
  const std::vector<StoredDocument>& documents = shards_[shard].documents;
  const auto document = std::upper_bound(
      documents.begin(), documents.end(), at,
      [](int64_t token, const StoredDocument& candidate) { return token < candidate.end; });
  return {status.code(), absl::StrCat(status.message(), " (document ", document->number, ")")};
}

absl::StatusOr<std::vector<std::string>> document_ids(const std::string& folder,
                                                      const DatasetInfo::Shard& shard) {
  const std::string path = absl::StrCat(folder, "/", shard.name, ".ids");
  if (!path_exists(path)) {
    std::vector<std::string> numbers;
    for (int64_t d = 0; d < shard.documents; ++d) {
      numbers.push_back(absl::StrCat(shard.name, ":", d));
    }
    return numbers;
  }
  absl::StatusOr<std::string> text = read_file(path, uint64_t{1} << 36);
  if (!text.ok()) return text.status();
  std::vector<std::string> ids = absl::StrSplit(*text, '\n');
  ids.pop_back();  // behind the last newline
  if (static_cast<int64_t>(ids.size()) != shard.documents) {
    return absl::DataLossError(
        absl::StrCat(path, ": ", ids.size(), " ids, expected ", shard.documents));
  }
  return ids;
}

}  // namespace emo

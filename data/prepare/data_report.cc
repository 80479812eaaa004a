#include "data/prepare/data_report.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "data/files/readable_file.h"
#include "data/files/sha256.h"
#include "data/shards/token_shards.h"

namespace emo {
namespace {

absl::StatusOr<std::string> sha256_of_file(const std::string& path) {
  constexpr int64_t kPiece = 16 << 20;
  absl::StatusOr<std::unique_ptr<ReadableFile>> file = open_readable(path);
  if (!file.ok()) return file.status();
  Sha256 hash;
  std::string bytes;
  for (int64_t at = 0; at < (*file)->size(); at += kPiece) {
    bytes.resize(static_cast<size_t>(std::min(kPiece, (*file)->size() - at)));
    absl::Status status = (*file)->read(at, static_cast<int64_t>(bytes.size()), bytes.data());
    if (!status.ok()) return status;
    hash.update(bytes);
  }
  return hash.hex_digest();
}

absl::Status compare_hash(const std::string& folder, const DatasetInfo::Shard& shard) {
  const std::string path = absl::StrCat(folder, "/", shard.name, ".npy");
  absl::StatusOr<std::string> found = sha256_of_file(path);
  if (!found.ok()) return found.status();
  if (*found == shard.sha256) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      path, ": its SHA-256 is not that of dataset.json: bytes have changed since emo prepare"));
}

void count_documents(const TokenDataset& data, int64_t shard, DataReport* report) {
  int64_t begin = 0;
  for (int64_t d = 0; d < data.documents(shard); ++d) {
    const DocumentRecord& record = data.index(shard)[d];
    const int64_t tokens = static_cast<int64_t>(record.end) - begin;
    report->by_source[data.info().sources[record.source]].add({0, tokens, 0, tokens, 1});
    begin += tokens;
  }
}

}  // namespace

void DataCounts::add(const DataCounts& other) {
  files += other.files;
  tokens += other.tokens;
  rows += other.rows;
  read += other.read;
  ends += other.ends;
}

absl::StatusOr<DataReport> report_of_prepared(const std::string& folder, int64_t sequence_length,
                                              bool hash) {
  absl::StatusOr<TokenDataset> data = TokenDataset::open(folder);
  if (!data.ok()) return data.status();
  DataReport report;
  report.sources = data->info().sources;
  report.sources_share_files = true;
  for (const std::string& source : report.sources) report.by_source[source] = {};
  for (int64_t shard = 0; shard < data->num_shards(); ++shard) {
    count_documents(*data, shard, &report);
    const int64_t tokens = data->tokens(shard);
    report.all.add({1, tokens, tokens / sequence_length, tokens, data->documents(shard)});
    if (!hash) continue;
    absl::Status status = compare_hash(folder, data->info().shards[shard]);
    if (!status.ok()) report.odd.emplace_back(status.message());
  }
  return report;
}

}  // namespace emo

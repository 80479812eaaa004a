#include "data/prepare/data_report.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/files/json.h"
#include "data/files/readable_file.h"
#include "data/files/sha256.h"
#include "data/shards/dataset_info.h"
#include "data/shards/token_dataset.h"

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

absl::Status compare_hash(const std::string& path, const std::string& expected) {
  absl::StatusOr<std::string> found = sha256_of_file(path);
  if (!found.ok()) return found.status();
  if (*found == expected) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      path, ": its SHA-256 is not that of dataset.json: bytes have changed since emo prepare"));
}

absl::Status count_documents(const DatasetInfo& info, const DocumentIndex& documents,
                             DataReport* report) {
  return documents.read(0, documents.documents(), [&](const StoredDocument& document) {
    const int64_t tokens = document.length();
    report->source(info.sources[document.source]).add({0, tokens, 0, tokens, 1});
  });
}

OrderedJson counts_json(const DataCounts& counts, bool share_files) {
  OrderedJson json = OrderedJson::object();
  if (!share_files) json["files"] = counts.files;
  json["tokens"] = counts.tokens;
  if (!share_files) json["rows"] = counts.rows;
  if (counts.read == counts.tokens) json["documents"] = counts.ends;
  if (counts.ends > 0) {
    json["tokens_per_document"] =
        static_cast<double>(counts.read) / static_cast<double>(counts.ends);
  }
  return json;
}

void print_counts(const std::string& name, const DataCounts& counts, bool share_files) {
  const auto number = [&](int64_t n) { return share_files ? "-" : absl::StrCat(n); };
  const bool all_read = counts.read == counts.tokens;
  absl::PrintF("%-28s %7s %18d %14s %14s %16s\n", name, number(counts.files), counts.tokens,
               number(counts.rows), all_read ? absl::StrCat(counts.ends) : "-",
               counts.ends == 0 ? "-"
                                : absl::StrFormat("%.0f", static_cast<double>(counts.read) /
                                                              static_cast<double>(counts.ends)));
}

double percent(int64_t part, int64_t whole) {
  return 100 * static_cast<double>(part) / static_cast<double>(std::max<int64_t>(whole, 1));
}

void print_packing(const PackingCounts& counts) {
  absl::PrintF(
      "%d rows; %.2f %% of documents are cut, %.2f %% of tokens are in no row, %.2f %% of the rows "
      "is filling\n",
      counts.rows, percent(counts.cut_documents, counts.documents),
      percent(counts.dropped, counts.dropped + counts.tokens),
      percent(counts.filling, counts.filling + counts.tokens));
}

}  // namespace

void DataCounts::add(const DataCounts& other) {
  files += other.files;
  tokens += other.tokens;
  rows += other.rows;
  read += other.read;
  ends += other.ends;
}

DataCounts& DataReport::source(const std::string& label) {
  const auto [found, is_new] = by_source.try_emplace(label);
  if (is_new) sources.push_back(label);
  return found->second;
}

void print_report(const DataReport& report) {
  absl::PrintF("%-28s %7s %18s %14s %14s %16s\n", "source", "files", "tokens", "rows", "documents",
               "tokens/document");
  for (size_t i = 0; i < report.sources.size(); ++i) {
    const std::string& source = report.sources[i];
    const std::string share =
        report.shares.empty() ? "" : absl::StrFormat(" (%.4g %%)", 100 * report.shares[i]);
    print_counts(source + share, report.by_source.at(source), report.sources_share_files);
  }
  print_counts("all", report.all, false);
  if (report.packing) print_packing(*report.packing);
  for (const std::string& odd : report.odd) absl::PrintF("%s\n", odd);
}

void print_report_json(const DataReport& report) {
  OrderedJson sources = OrderedJson::object();
  for (size_t i = 0; i < report.sources.size(); ++i) {
    const std::string& source = report.sources[i];
    OrderedJson counts = counts_json(report.by_source.at(source), report.sources_share_files);
    if (!report.shares.empty()) counts["share"] = report.shares[i];
    sources[source] = counts;
  }
  OrderedJson json = counts_json(report.all, false);
  json["sources"] = sources;
  if (report.packing) {
    json["packing"] = {{"rows", report.packing->rows},
                       {"filling_tokens", report.packing->filling},
                       {"dropped_tokens", report.packing->dropped},
                       {"documents", report.packing->documents},
                       {"cut_documents", report.packing->cut_documents}};
  }
  json["odd"] = report.odd;
  absl::PrintF("%s\n", to_text(json));
}

absl::StatusOr<DataReport> report_of_prepared(const std::string& folder, int64_t sequence_length,
                                              bool hash) {
  absl::StatusOr<DatasetInfo> info = read_dataset_info(folder);
  if (!info.ok()) return info.status();
  DataReport report;
  report.sources_share_files = true;
  for (const std::string& source : info->sources) report.source(source);
  for (size_t i = 0; i < info->shards.size(); ++i) {
    absl::StatusOr<PreparedShard> shard =
        open_prepared_shard(folder, *info, static_cast<int64_t>(i));
    absl::Status status = shard.status();
    if (status.ok()) status = count_documents(*info, shard->documents, &report);
    const std::string stem = absl::StrCat(folder, "/", info->shards[i].name);
    if (status.ok() && hash) status = compare_hash(stem + ".npy", info->shards[i].sha256);
    const std::string& index_hash = info->shards[i].index_sha256;
    if (status.ok() && hash && !index_hash.empty()) {
      status = compare_hash(stem + ".index", index_hash);
    }
    if (!status.ok()) {
      report.odd.emplace_back(status.message());
      continue;
    }
    const int64_t tokens = info->shards[i].tokens;
    report.all.add({1, tokens, tokens / sequence_length, tokens, info->shards[i].documents});
  }
  return report;
}

}  // namespace emo

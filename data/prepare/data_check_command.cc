#include <algorithm>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "data/order/random_bits.h"
#include "data/prepare/commands.h"
#include "data/prepare/data_options.h"
#include "data/prepare/data_report.h"
#include "data/program/exit_code.h"
#include "data/program/progress.h"
#include "data/program/thread_count.h"
#include "data/rows/data_record.h"
#include "data/shards/end_file.h"
#include "data/shards/shard_set.h"

namespace emo {
namespace {

struct CheckOptions {
  DataOptions data;
  int64_t samples = 8;
  int64_t threads = 0;
  std::string checkpoint;
  bool all = false;
  bool json = false;
};

// Reads some rows of a file and counts the documents that end there.
absl::Status look_at_rows(const TokenFile& file, const CheckOptions& options, uint64_t key,
                          DataCounts* counts) {
  const RowsOptions& rows = options.data.rows;
  const int64_t S = rows.sequence_length;
  const int64_t there = file.tokens() / S;
  const int64_t looked_at = std::min(there, options.samples);
  std::vector<int32_t> tokens(static_cast<size_t>(S));
  std::string bytes;
  for (int64_t i = 0; i < looked_at; ++i) {
    const auto drawn = random_bits(key, static_cast<uint64_t>(i), 0);
    const int64_t row =
        looked_at == there
            ? i
            : static_cast<int64_t>(random_below(drawn, static_cast<uint64_t>(there)));
    absl::Status status = file.read(row * S, S, rows.vocab_size, tokens.data(), &bytes);
    if (!status.ok()) return status;
    counts->read += S;
    counts->ends += std::count(tokens.begin(), tokens.end(), rows.eos_id);
  }
  return absl::OkStatus();
}

// The index of a file, where it has one.
absl::StatusOr<std::optional<EndFile>> index_of(const TokenFile& file, const RowsOptions& rows) {
  if (rows.index.empty()) return std::nullopt;
  absl::StatusOr<std::string> ids = sampled_ids(file);
  if (!ids.ok()) return ids.status();
  return find_ends(rows.index, mark_of(file, *ids), static_cast<int32_t>(rows.eos_id));
}

// Reads all of a file, and compares it with what its index says.
absl::Status look_at_all(const TokenFile& file, const CheckOptions& options,
                         const std::optional<EndFile>& index, Progress* progress, int64_t* done,
                         DataCounts* counts) {
  const RowsOptions& rows = options.data.rows;
  const int threads = thread_count(options.threads);
  absl::StatusOr<ScannedDocuments> scanned =
      scan_documents(file, rows.vocab_size, static_cast<int32_t>(rows.eos_id), threads,
                     [&](absl::Span<const uint64_t>, int64_t tokens) {
                       progress->update(*done += tokens);
                       return absl::OkStatus();
                     });
  if (!scanned.ok()) return scanned.status();
  counts->read = file.tokens();
  counts->ends = scanned->documents;
  if (!index ||
      (scanned->ids_sha256 == index->ids_sha256 && scanned->ends_sha256 == index->ends_sha256 &&
       scanned->documents == index->documents.documents())) {
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrCat(file.path(), ": its ids are not those that ",
                                          index->documents.path(), " is of"));
}

// REQUIRES: of token files.
class FilesCheck {
 public:
  FilesCheck(const CheckOptions& options, const std::vector<MixFile>& files)
      : options_(options),
        width_(token_width(rows_of(options.data).dtype, options.data.rows.vocab_size)),
        progress_("check", options.all ? tokens_of(files) : static_cast<int64_t>(files.size()),
                  options.all ? "tokens" : "files", !options.json) {}

  void look_at(const MixFile& entry, uint64_t number, DataReport* report) {
    DataCounts& of_label = report->source(entry.label);
    absl::StatusOr<DataCounts> counts = counts_of(entry, number);
    if (!options_.all) progress_.update(static_cast<int64_t>(number) + 1);
    if (!counts.ok()) {
      report->odd.emplace_back(counts.status().message());
      return;
    }
    of_label.add(*counts);
    report->all.add(*counts);
  }

 private:
  int64_t tokens_of(const std::vector<MixFile>& files) const {
    int64_t tokens = 0;
    for (const MixFile& file : files) {
      absl::StatusOr<TokenFile> opened = TokenFile::open(file.path, width_);
      tokens += opened.ok() ? opened->tokens() : 0;
    }
    return tokens;
  }
  absl::StatusOr<DataCounts> counts_of(const MixFile& entry, uint64_t number) {
    absl::StatusOr<TokenFile> file = TokenFile::open(entry.path, width_);
    if (!file.ok()) return file.status();
    const int64_t S = options_.data.rows.sequence_length;
    DataCounts counts{1, file->tokens(), file->tokens() / S};
    if (counts.rows == 0 && options_.data.documents == "cut") {
      return absl::DataLossError(
          absl::StrCat(entry.path, ": ", counts.tokens, " tokens are no row of ", S));
    }
    absl::StatusOr<std::optional<EndFile>> index = index_of(*file, options_.data.rows);
    if (!index.ok()) return index.status();
    absl::Status status = options_.all
                              ? look_at_all(*file, options_, *index, &progress_, &done_, &counts)
                              : look_at_rows(*file, options_, number, &counts);
    if (!status.ok()) return status;
    if (*index) {
      counts.read = counts.tokens;
      counts.ends = (*index)->documents.documents();
    }
    return counts;
  }

  const CheckOptions& options_;
  const int64_t width_;
  Progress progress_;
  int64_t done_ = 0;  // tokens, with --all
};

absl::StatusOr<DataReport> report_of_files(const CheckOptions& options, const RowsOptions& rows) {
  absl::StatusOr<Mix> mix = list_token_files(rows);
  if (!mix.ok()) return mix.status();
  absl::Status status = check_options(rows);
  if (!status.ok()) return status;
  DataReport report;
  FilesCheck check(options, mix->files);
  for (size_t i = 0; i < mix->files.size(); ++i) check.look_at(mix->files[i], i, &report);
  return report;
}

// What needs the rows themselves, of data that can be read.
absl::Status add_rows(const CheckOptions& options, const RowsOptions& how, DataReport* report) {
  absl::StatusOr<Rows> rows = open_rows(how);
  if (!rows.ok()) return rows.status();
  if (rows->mix) report->shares = rows->mix->shares();
  absl::StatusOr<std::optional<PackingCounts>> packing = rows->chunks->packing();
  if (!packing.ok()) return packing.status();
  report->packing = *packing;
  if (options.checkpoint.empty()) return absl::OkStatus();
  absl::StatusOr<DataRecord> record = read_data_record(options.checkpoint);
  if (!record.ok()) return record.status();
  for (const std::string& line : changes_since(*record, *rows->chunks)) {
    report->odd.push_back(absl::StrCat("not as ", options.checkpoint, " has seen it: ", line));
  }
  return absl::OkStatus();
}

absl::StatusOr<int> check_data(const CheckOptions& options) {
  const RowsOptions rows = rows_of(options.data);
  absl::StatusOr<DataReport> report =
      is_prepared(rows) ? report_of_prepared(rows.paths[0], rows.sequence_length, options.all)
                        : report_of_files(options, rows);
  if (!report.ok()) return report.status();
  if (report->odd.empty()) {
    absl::Status status = add_rows(options, rows, &*report);
    if (!status.ok()) report->odd.emplace_back(status.message());
  } else if (!options.checkpoint.empty()) {
    report->odd.push_back("not compared with " + options.checkpoint);
  }
  options.json ? print_report_json(*report) : print_report(*report);
  return report->odd.empty() ? kExitDone : kExitDiffers;
}

}  // namespace

Command data_check_command() {
  auto options = std::make_shared<CheckOptions>();
  options->data.rows.sequence_length = 4096;
  Command command;
  command.name = "data check";
  command.summary = "List a run's data: sizes, sources, what is missing, odd or has changed";
  add_data_options(&command.options, &options->data, TakesFolders::kYes);
  add_row_options(&command.options, &options->data);
  command.options.add("--samples", &options->samples, "rows of each token file that are read")
      .at_least(0)
      .show_default();
  command.options.add("--all", &options->all,
                      "read everything, and compare it with the index;\nof a folder, its SHA-256 "
                      "with dataset.json");
  command.options.add("--checkpoint", &options->checkpoint,
                      "compare with the data that a run had seen when it\nwrote this checkpoint");
  command.options.add("--threads", &options->threads, "of --all; 0: one per core")
      .range(0, 1024)
      .show_default();
  command.options.add("--json", &options->json, "print one JSON object");
  command.footer =
      "Says what --documents does to documents where it is known where they lie: of a folder, and\n"
      "of token files with an index. Ends with 1 where a file of a list is missing, cannot be "
      "read\n"
      "as it should, or is not what it was. --checkpoint compares rows too: give --documents as "
      "the\n"
      "run has it.\n"
      "Example: emo data check configs/mixes/OLMoE-mix-0824.txt --root /data \\\n"
      "           --tokenizer-name allenai/dolma2-tokenizer --vocab-size 100278 --eos-id 100257";
  command.run = [options] { return check_data(*options); };
  return command;
}

}  // namespace emo

#include <algorithm>
#include <memory>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "data/files/file_lock.h"
#include "data/files/file_system.h"
#include "data/prepare/commands.h"
#include "data/prepare/data_options.h"
#include "data/prepare/data_report.h"
#include "data/program/exit_code.h"
#include "data/program/progress.h"
#include "data/shards/end_file.h"

namespace emo {
namespace {

struct IndexOptions {
  DataOptions data;
  int64_t threads = 0;
  bool quiet = false;
  bool json = false;
};

// A file that is to be indexed.
struct Indexed {
  std::string label;
  TokenFile file;
  std::string ends;  // path of its index
};

absl::StatusOr<std::vector<Indexed>> open_files(const std::vector<MixFile>& files,
                                                const RowsOptions& rows) {
  std::vector<Indexed> opened;
  for (const MixFile& entry : files) {
    absl::StatusOr<TokenFile> file =
        TokenFile::open(entry.path, token_width(rows.dtype, rows.vocab_size));
    if (!file.ok()) return file.status();
    if (file->tokens() == 0) return absl::DataLossError(entry.path + ": holds no token");
    absl::StatusOr<std::string> ids = sampled_ids(*file);
    if (!ids.ok()) return ids.status();
    const DataFile mark{file_name(entry.path), file->tokens(), sample_of(*ids)};
    std::string ends = path_of_ends(rows.index, mark, static_cast<int32_t>(rows.eos_id));
    opened.push_back({entry.label, *std::move(file), std::move(ends)});
  }
  return opened;
}

// What a killed one has left; the lock says that none is at work.
absl::Status remove_left_overs(const std::string& folder) {
  absl::StatusOr<std::vector<std::string>> names = list_directory(folder);
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    if (!absl::StrContains(name, ".ends.tmp-")) continue;
    absl::Status status = posix_file_system().remove_all(absl::StrCat(folder, "/", name));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// The documents of a file, from its index, which is made where it is not there.
absl::StatusOr<int64_t> documents_of(const Indexed& indexed, const RowsOptions& rows, int threads,
                                     const std::function<void(int64_t tokens)>& see) {
  if (path_exists(indexed.ends)) {
    absl::StatusOr<EndFile> found = EndFile::open(indexed.ends, indexed.file.tokens());
    if (!found.ok()) return found.status();
    see(indexed.file.tokens());
    return found->documents.documents();
  }
  absl::StatusOr<ScannedDocuments> scanned =
      write_ends(posix_file_system(), indexed.file, rows.vocab_size,
                 static_cast<int32_t>(rows.eos_id), threads, indexed.ends, see);
  if (!scanned.ok()) return scanned.status();
  return scanned->documents;
}

absl::StatusOr<DataReport> make_index(const RowsOptions& rows, const IndexOptions& options,
                                      const std::vector<Indexed>& files) {
  const int64_t threads =
      options.threads > 0 ? options.threads : std::max(1U, std::thread::hardware_concurrency());
  int64_t total = 0;
  for (const Indexed& each : files) total += each.file.tokens();
  Progress progress("index", total, "tokens", !options.quiet);
  int64_t done = 0;
  DataReport report;
  for (const Indexed& each : files) {
    absl::StatusOr<int64_t> documents =
        documents_of(each, rows, static_cast<int>(threads),
                     [&](int64_t tokens) { progress.update(done += tokens); });
    if (!documents.ok()) return documents.status();
    const int64_t tokens = each.file.tokens();
    const DataCounts counts{1, tokens, tokens / rows.sequence_length, tokens, *documents};
    report.source(each.label).add(counts);
    report.all.add(counts);
  }
  return report;
}

absl::StatusOr<int> index_data(const IndexOptions& options) {
  const RowsOptions rows = rows_of(options.data);
  if (is_prepared(rows)) {
    return absl::InvalidArgumentError(
        absl::StrCat(rows.paths[0], ": a folder of emo prepare has its index already"));
  }
  absl::StatusOr<Mix> mix = list_token_files(rows);
  if (!mix.ok()) return mix.status();
  absl::Status status = check_options(rows);
  if (!status.ok()) return status;
  absl::StatusOr<std::vector<Indexed>> files = open_files(mix->files, rows);
  if (!files.ok()) return files.status();
  const std::string folder = rows.index + "/ends";
  status = posix_file_system().make_directories(folder);
  if (!status.ok()) return status;
  absl::StatusOr<FileLock> lock = FileLock::take(folder + "/.lock", FileLock::Held::kRefuse);
  if (!lock.ok()) return lock.status();
  status = remove_left_overs(folder);
  if (!status.ok()) return status;
  absl::StatusOr<DataReport> report = make_index(rows, options, *files);
  if (!report.ok()) return report.status();
  options.json ? print_report_json(*report) : print_report(*report);
  return kExitDone;
}

}  // namespace

Command data_index_command() {
  auto options = std::make_shared<IndexOptions>();
  options->data.rows.sequence_length = 4096;
  Command command;
  command.name = "data index";
  command.summary = "Write down where the documents of token files lie";
  add_data_options(&command.options, &options->data, TakesFolders::kNo, NeedsIndex::kYes);
  command.options.add("--threads", &options->threads, "0: one per core").at_least(0).show_default();
  command.options.add("--quiet", &options->quiet, "no progress line");
  command.options.add("--json", &options->json, "print one JSON object");
  command.footer =
      "Reads every token once, and goes on where it was stopped, file by file. With the index a "
      "run\nknows the documents of its rows by number, and can keep them whole "
      "(data.documents).\nA file is known by its name, length and a sample of its ids, wherever it "
      "lies.\n"
      "Example: emo data index configs/mixes/OLMoE-mix-0824.txt --root /data --index "
      "/scratch/index \\\n"
      "           --tokenizer-name allenai/dolma2-tokenizer --vocab-size 100278 --eos-id 100257";
  command.run = [options] { return index_data(*options); };
  return command;
}

}  // namespace emo

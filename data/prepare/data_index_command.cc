#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "data/files/file_lock.h"
#include "data/files/file_system.h"
#include "data/prepare/commands.h"
#include "data/prepare/data_options.h"
#include "data/prepare/data_report.h"
#include "data/program/exit_code.h"
#include "data/program/progress.h"
#include "data/program/thread_count.h"
#include "data/shards/end_file.h"

namespace emo {
namespace {

struct IndexOptions {
  DataOptions data;
  int64_t threads = 0;
  bool quiet = false;
  bool json = false;
};

// A file that is to be indexed. It is opened again when its turn comes, so that few are open.
struct Indexed {
  MixFile file;
  int64_t tokens = 0;
  std::string ends;  // path of its index
};

int64_t width_of(const RowsOptions& rows) { return token_width(rows.dtype, rows.vocab_size); }

absl::StatusOr<Indexed> look_at(const MixFile& entry, const RowsOptions& rows) {
  absl::StatusOr<TokenFile> file = TokenFile::open(entry.path, width_of(rows));
  if (!file.ok()) return file.status();
  absl::StatusOr<std::string> ids = sampled_ids(*file);
  if (!ids.ok()) return ids.status();
  const DataFile mark = mark_of(*file, *ids);
  return Indexed{entry, mark.tokens,
                 path_of_ends(rows.index, mark, static_cast<int32_t>(rows.eos_id))};
}

// All that cannot be read is named at once.
absl::StatusOr<std::vector<Indexed>> look_at_all(const std::vector<MixFile>& files,
                                                 const RowsOptions& rows) {
  std::vector<Indexed> indexed;
  absl::Status wrong;
  for (const MixFile& entry : files) {
    absl::StatusOr<Indexed> one = look_at(entry, rows);
    if (one.ok()) {
      indexed.push_back(*std::move(one));
    } else {
      wrong = wrong.ok() ? one.status()
                         : absl::Status(wrong.code(), absl::StrCat(wrong.message(), "\n",
                                                                   one.status().message()));
    }
  }
  if (!wrong.ok()) return wrong;
  return indexed;
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
  if (indexed.tokens == 0) return 0;
  if (path_exists(indexed.ends)) {
    absl::StatusOr<EndFile> found = EndFile::open(indexed.ends, indexed.tokens);
    if (!found.ok()) return found.status();
    see(indexed.tokens);
    return found->documents.documents();
  }
  absl::StatusOr<TokenFile> file = TokenFile::open(indexed.file.path, width_of(rows));
  if (!file.ok()) return file.status();
  absl::StatusOr<ScannedDocuments> scanned =
      write_ends(posix_file_system(), *file, rows.vocab_size, static_cast<int32_t>(rows.eos_id),
                 threads, indexed.ends, see);
  if (!scanned.ok()) return scanned.status();
  return scanned->documents;
}

absl::StatusOr<DataReport> make_index(const RowsOptions& rows, const IndexOptions& options,
                                      const std::vector<Indexed>& files) {
  const int threads = thread_count(options.threads);
  int64_t total = 0;
  for (const Indexed& each : files) total += each.tokens;
  Progress progress("index", total, "tokens", !options.quiet);
  int64_t done = 0;
  DataReport report;
  for (const Indexed& each : files) {
    absl::StatusOr<int64_t> documents =
        documents_of(each, rows, threads, [&](int64_t tokens) { progress.update(done += tokens); });
    if (!documents.ok()) return documents.status();
    const DataCounts counts{1, each.tokens, each.tokens / rows.sequence_length, each.tokens,
                            *documents};
    report.source(each.file.label).add(counts);
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
  absl::StatusOr<std::vector<Indexed>> files = look_at_all(mix->files, rows);
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
  command.options.add("--threads", &options->threads, "0: one per core")
      .range(0, 1024)
      .show_default();
  command.options.add("--quiet", &options->quiet, "no progress line");
  command.options.add("--json", &options->json, "print one JSON object");
  command.footer =
      "Reads every token once, and goes on where it was stopped, file by file. With the index a "
      "run\n"
      "knows the documents of its rows by number, and can keep them whole (data.documents). A "
      "file\n"
      "is known by its name, length and a sample of its ids, wherever it lies.\n"
      "Example: emo data index configs/mixes/OLMoE-mix-0824.txt --root /data --index "
      "/scratch/index \\\n"
      "           --tokenizer-name allenai/dolma2-tokenizer --vocab-size 100278 --eos-id 100257";
  command.run = [options] { return index_data(*options); };
  return command;
}

}  // namespace emo

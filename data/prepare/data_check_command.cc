#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/files/file_system.h"
#include "data/files/json.h"
#include "data/order/random_bits.h"
#include "data/prepare/commands.h"
#include "data/prepare/data_report.h"
#include "data/prepare/token_file_options.h"
#include "data/program/exit_code.h"

namespace emo {
namespace {

struct CheckOptions {
  TokenFileOptions files;
  int64_t samples = 8;
  bool all = false;
  bool json = false;
};

OrderedJson counts_json(const DataCounts& counts, bool share_files) {
  OrderedJson json = OrderedJson::object();
  if (!share_files) json["files"] = counts.files;
  json["tokens"] = counts.tokens;
  if (!share_files) json["rows"] = counts.rows;
  if (counts.ends > 0) {
    json["tokens_per_document"] =
        static_cast<double>(counts.read) / static_cast<double>(counts.ends);
  }
  return json;
}

// Reads some rows of a file, or all, and counts the documents that end there.
absl::Status look_at(const TokenFile& file, const CheckOptions& options, uint64_t key,
                     DataCounts* counts) {
  const int64_t S = options.files.sequence_length;
  const int64_t rows = file.tokens() / S;
  const int64_t looked_at = options.all ? rows : std::min(rows, options.samples);
  std::vector<int32_t> tokens(static_cast<size_t>(S));
  std::string bytes;
  for (int64_t i = 0; i < looked_at; ++i) {
    const int64_t row = looked_at == rows
                            ? i
                            : static_cast<int64_t>(random_bits(key, static_cast<uint64_t>(i), 0) %
                                                   static_cast<uint64_t>(rows));
    absl::Status status = file.read(row * S, S, options.files.vocab_size, tokens.data(), &bytes);
    if (!status.ok()) return status;
    counts->read += S;
    counts->ends += std::count(tokens.begin(), tokens.end(), options.files.eos_id);
  }
  return absl::OkStatus();
}

absl::StatusOr<DataCounts> check_file(const MixFile& entry, const CheckOptions& options,
                                      uint64_t key) {
  absl::StatusOr<TokenFile> file = TokenFile::open(entry.path, width_of(options.files));
  if (!file.ok()) return file.status();
  DataCounts counts{1, file->tokens(), file->tokens() / options.files.sequence_length};
  if (counts.rows == 0) {
    return absl::DataLossError(absl::StrCat(
        entry.path, ": ", counts.tokens, " tokens are no row of ", options.files.sequence_length));
  }
  absl::Status status = look_at(*file, options, key, &counts);
  if (!status.ok()) return status;
  return counts;
}

void print_counts(const std::string& name, const DataCounts& counts, bool share_files) {
  const auto number = [&](int64_t n) { return share_files ? "-" : absl::StrCat(n); };
  const double documents = static_cast<double>(counts.ends);
  absl::PrintF(
      "%-28s %7s %20d %16s %18s\n", name, number(counts.files), counts.tokens, number(counts.rows),
      counts.ends == 0 ? "-"
                       : absl::StrFormat("%.0f", static_cast<double>(counts.read) / documents));
}

void print_report(const DataReport& report) {
  absl::PrintF("%-28s %7s %20s %16s %18s\n", "source", "files", "tokens", "rows",
               "tokens/document");
  for (const std::string& source : report.sources) {
    print_counts(source, report.by_source.at(source), report.sources_share_files);
  }
  print_counts("all", report.all, false);
  for (const std::string& odd : report.odd) absl::PrintF("%s\n", odd);
}

void print_json(const DataReport& report) {
  OrderedJson sources = OrderedJson::object();
  for (const std::string& source : report.sources) {
    sources[source] = counts_json(report.by_source.at(source), report.sources_share_files);
  }
  OrderedJson json = counts_json(report.all, false);
  json["sources"] = sources;
  json["odd"] = report.odd;
  absl::PrintF("%s\n", to_text(json));
}

absl::StatusOr<DataReport> report_of_files(const CheckOptions& options) {
  absl::StatusOr<std::vector<MixFile>> files = list_token_files(options.files);
  if (!files.ok()) return files.status();
  DataReport report;
  for (size_t i = 0; i < files->size(); ++i) {
    const MixFile& entry = (*files)[i];
    if (!report.by_source.contains(entry.label)) report.sources.push_back(entry.label);
    DataCounts& of_label = report.by_source[entry.label];
    absl::StatusOr<DataCounts> counts = check_file(entry, options, i);
    if (!counts.ok()) {
      report.odd.emplace_back(counts.status().message());
      continue;
    }
    of_label.add(*counts);
    report.all.add(*counts);
  }
  return report;
}

absl::StatusOr<int> check_data(const CheckOptions& options) {
  absl::StatusOr<DataReport> report =
      is_directory(options.files.data)
          ? report_of_prepared(options.files.data, options.files.sequence_length, options.all)
          : report_of_files(options);
  if (!report.ok()) return report.status();
  options.json ? print_json(*report) : print_report(*report);
  return report->odd.empty() ? kExitDone : kExitDiffers;
}

}  // namespace

Command data_check_command() {
  auto options = std::make_shared<CheckOptions>();
  Command command;
  command.name = "data check";
  command.summary = "List a run's data: sizes, sources, what is missing or odd";
  add_token_file_options(&command.options, &options->files, "folder that emo prepare wrote, ");
  command.options.add("--samples", &options->samples, "rows of each token file that are read")
      .at_least(0)
      .show_default();
  command.options.add("--all", &options->all,
                      "read everything; of a folder also compare\nSHA-256 with dataset.json");
  command.options.add("--json", &options->json, "print one JSON object");
  command.footer =
      "Ends with 1 where a file is missing or cannot be read as it should.\n"
      "Example: emo data check configs/mixes/OLMoE-mix-0824.txt --root /data \\\n"
      "           --tokenizer-name allenai/dolma2-tokenizer --vocab-size 100278 --eos-id 100257";
  command.run = [options] { return check_data(*options); };
  return command;
}

}  // namespace emo

#include <algorithm>
#include <map>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/files/json.h"
#include "data/order/random_bits.h"
#include "data/prepare/commands.h"
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

// Of one label, or of all.
struct Counts {
  int64_t files = 0, tokens = 0, rows = 0;
  int64_t read = 0, ends = 0;  // tokens that were looked at, and documents that end among them
  void add(const Counts& other) {
    files += other.files;
    tokens += other.tokens;
    rows += other.rows;
    read += other.read;
    ends += other.ends;
  }
};

OrderedJson counts_json(const Counts& counts) {
  OrderedJson json = {{"files", counts.files}, {"tokens", counts.tokens}, {"rows", counts.rows}};
  if (counts.ends > 0) {
    json["tokens_per_document"] =
        static_cast<double>(counts.read) / static_cast<double>(counts.ends);
  }
  return json;
}

// Reads some rows of a file, or all, and counts the documents that end there.
absl::Status look_at(const TokenFile& file, const CheckOptions& options, uint64_t key,
                     Counts* counts) {
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

absl::StatusOr<Counts> check_file(const MixFile& entry, const CheckOptions& options, uint64_t key) {
  absl::StatusOr<TokenFile> file = TokenFile::open(entry.path, width_of(options.files));
  if (!file.ok()) return file.status();
  Counts counts{1, file->tokens(), file->tokens() / options.files.sequence_length};
  if (counts.rows == 0) {
    return absl::DataLossError(absl::StrCat(
        entry.path, ": ", counts.tokens, " tokens are no row of ", options.files.sequence_length));
  }
  absl::Status status = look_at(*file, options, key, &counts);
  if (!status.ok()) return status;
  return counts;
}

struct Report {
  Counts all;
  std::vector<std::string> labels;  // in order of first appearance
  std::map<std::string, Counts> by_label;
  std::vector<std::string> odd;  // files that cannot be read as they should
};

void print_report(const Report& report) {
  absl::PrintF("%-28s %7s %20s %16s %18s\n", "source", "files", "tokens", "rows",
               "tokens/document");
  const auto line = [](const std::string& label, const Counts& counts) {
    absl::PrintF("%-28s %7d %20d %16d %18s\n", label, counts.files, counts.tokens, counts.rows,
                 counts.ends == 0 ? "-"
                                  : absl::StrFormat("%.0f", static_cast<double>(counts.read) /
                                                                static_cast<double>(counts.ends)));
  };
  for (const std::string& label : report.labels) line(label, report.by_label.at(label));
  line("all", report.all);
  for (const std::string& odd : report.odd) absl::PrintF("%s\n", odd);
}

absl::StatusOr<int> check_files(const CheckOptions& options) {
  absl::StatusOr<std::vector<MixFile>> files = list_token_files(options.files);
  if (!files.ok()) return files.status();
  Report report;
  for (size_t i = 0; i < files->size(); ++i) {
    const MixFile& entry = (*files)[i];
    if (!report.by_label.contains(entry.label)) report.labels.push_back(entry.label);
    Counts& of_label = report.by_label[entry.label];
    absl::StatusOr<Counts> counts = check_file(entry, options, i);
    if (!counts.ok()) {
      report.odd.emplace_back(counts.status().message());
      continue;
    }
    of_label.add(*counts);
    report.all.add(*counts);
  }
  if (options.json) {
    OrderedJson sources = OrderedJson::object();
    for (const std::string& label : report.labels) {
      sources[label] = counts_json(report.by_label.at(label));
    }
    OrderedJson json = counts_json(report.all);
    json["sources"] = sources;
    json["odd"] = report.odd;
    absl::PrintF("%s\n", to_text(json));
  } else {
    print_report(report);
  }
  return report.odd.empty() ? kExitDone : kExitDiffers;
}

}  // namespace

Command data_check_command() {
  auto options = std::make_shared<CheckOptions>();
  Command command;
  command.name = "data check";
  command.summary = "List token files: sizes, sources, what is missing or odd";
  add_token_file_options(&command.options, &options->files);
  command.options.add("--samples", &options->samples, "rows of each file that are read")
      .at_least(0)
      .show_default();
  command.options.add("--all", &options->all, "read every row");
  command.options.add("--json", &options->json, "print one JSON object");
  command.footer =
      "Ends with 1 where a file is missing or cannot be read as it should.\n"
      "Example: emo data check configs/mixes/OLMoE-mix-0824.txt --root /data \\\n"
      "           --tokenizer-name allenai/dolma2-tokenizer --vocab-size 100278 --eos-id 100257";
  command.run = [options] { return check_files(*options); };
  return command;
}

}  // namespace emo

#include "data/prepare/prepare_command.h"

#include <cstdio>
#include <memory>

#include "absl/strings/str_format.h"
#include "data/files/json.h"
#include "data/prepare/prepare.h"
#include "data/program/exit_code.h"
#include "data/rows/dataset_chunks.h"
#include "data/rows/loader.h"

namespace emo {
namespace {

OrderedJson source_json(const PrepareSummary::Source& source) {
  return {{"documents", source.documents}, {"tokens", source.tokens}, {"bytes", source.bytes}};
}

OrderedJson to_json(const PrepareSummary& summary) {
  OrderedJson sources = OrderedJson::object();
  for (const auto& [label, source] : summary.sources) sources[label] = source_json(source);
  OrderedJson json = source_json(summary.total);
  json["skipped"] = summary.skipped;
  json["warnings"] = summary.first_warnings;
  json["seconds"] = summary.seconds;
  json["sources"] = sources;
  return json;
}

void print_row(const std::string& label, const PrepareSummary::Source& source) {
  std::printf(
      "%-28s %10lld %12lld %12lld %8.2f\n", label.c_str(), static_cast<long long>(source.documents),
      static_cast<long long>(source.tokens), static_cast<long long>(source.bytes),
      static_cast<double>(source.bytes) / static_cast<double>(std::max<int64_t>(1, source.tokens)));
}

void print(const PrepareSummary& summary) {
  for (const std::string& warning : summary.first_warnings) {
    std::fprintf(stderr, "emo: warning: %s\n", warning.c_str());
  }
  if (summary.skipped > 0) {
    std::fprintf(stderr, "emo: warning: %lld documents skipped (--strict makes that an error)\n",
                 static_cast<long long>(summary.skipped));
  }
  std::printf("%-28s %10s %12s %12s %8s\n", "source", "documents", "tokens", "bytes", "B/token");
  for (const auto& [label, source] : summary.sources) print_row(label, source);
  print_row("total", summary.total);
  std::printf("%.1f s, %.1f MB/s\n", summary.seconds,
              static_cast<double>(summary.total.bytes) / summary.seconds / 1e6);
}

struct ShowOptions {
  std::string folder;
  int64_t batch = 0;       // its number
  int64_t batch_size = 4;  // rows
  LoaderOptions loader;
  bool sequential = false;
  bool whole = false;
  bool eos_next = false;
};

absl::StatusOr<int> show(ShowOptions options) {
  if (options.sequential) options.loader.order = Order::kSequential;
  if (options.eos_next) options.loader.eos_routes_with = EosRoutesWith::kNext;
  absl::StatusOr<std::unique_ptr<DatasetChunks>> chunks =
      DatasetChunks::open(options.folder, options.loader.sequence_length,
                          options.whole ? DocumentPacking::kWhole : DocumentPacking::kCut);
  if (!chunks.ok()) return chunks.status();
  const SequenceRange range{options.batch * options.batch_size,
                            (options.batch + 1) * options.batch_size};
  absl::StatusOr<Batch> batch = load(**chunks, options.loader, range);
  if (!batch.ok()) return batch.status();
  std::vector<std::vector<std::string>> ids((*chunks)->dataset().num_shards());
  std::printf("batch %lld: %lld rows of %lld tokens; %lld chunks in the data\n",
              static_cast<long long>(options.batch), static_cast<long long>(batch->rows),
              static_cast<long long>(batch->sequence_length),
              static_cast<long long>((*chunks)->num_chunks()));
  int64_t begin = 0;
  int64_t last_row = -1;
  int64_t ordinal = 0;
  for (size_t i = 0; i < batch->document_ends.size(); ++i) {
    const SpanSource& span = batch->span_sources[i];
    const int64_t row = begin / batch->sequence_length;
    if (row != last_row) {
      std::printf("row %lld, sequence %lld%s\n", static_cast<long long>(row),
                  static_cast<long long>(batch->sequence_index[row]),
                  batch->filtered[row] ? ", filtered: no labels" : "");
      ordinal = 0;
    }
    last_row = row;
    if (span.document >= 0 && ids[span.shard].empty()) {
      absl::StatusOr<std::vector<std::string>> read = (*chunks)->dataset().document_ids(span.shard);
      if (!read.ok()) return read.status();
      ids[span.shard] = *std::move(read);
    }
    const int64_t end = batch->document_ends[i];
    const std::string given =
        span.given > 0 ? absl::StrFormat("  (%d given)", span.given) : std::string();
    std::printf(
        "  document (%lld, %lld)  tokens [%lld, %lld)  %-20s %s%s\n",
        static_cast<long long>(batch->sequence_index[row]), static_cast<long long>(ordinal++),
        static_cast<long long>(begin - row * batch->sequence_length),
        static_cast<long long>(end - row * batch->sequence_length),
        span.document >= 0 ? (*chunks)->sources()[span.source].c_str() : "-",
        span.document >= 0 ? ids[span.shard][span.document].c_str() : "filling", given.c_str());
    begin = end;
  }
  std::printf("routing spans end at:");
  for (const int32_t end : batch->routing_ends) std::printf(" %d", end);
  std::printf("\n");
  return kExitDone;
}

}  // namespace

Command prepare_command() {
  struct State {
    PrepareOptions prepare;
    bool json = false;
  };
  auto state = std::make_shared<State>();
  PrepareOptions& options = state->prepare;
  Command command;
  command.name = "prepare";
  command.summary = "Turn documents into token shards";
  command.options
      .add("INPUT", &options.inputs, "files or folders: .jsonl, .jsonl.gz, or plain text")
      .required();
  command.options.add("--tokenizer", &options.tokenizer, "a tokenizer.json (byte-level BPE)")
      .required();
  command.options.add("--output", &options.output, "folder to write; must be new or empty")
      .required();
  command.options.add("--field", &options.fields.text, "JSON field that holds the text")
      .show_default();
  command.options.add(
      "--source", &options.fields.source,
      "label for all documents; else the field 'source', else the file's or folder's name");
  command.options.add("--eos", &options.eos, "end-of-document token; else the usual one");
  command.options.add("--threads", &options.threads, "0: one per core")
      .range(0, 1024)
      .show_default();
  command.options.add("--shard-tokens", &options.tokens_per_shard, "tokens in one shard file")
      .range(1, 1LL << 40)
      .show_default();
  command.options.add(
      "--tasks", &options.tasks,
      "INPUT are task files (docs/tasks.md): a document for each question, with its "
      "answer, which alone is predicted");
  command.options.add("--split", &options.split, "with --tasks: questions of which split")
      .show_default();
  command.options
      .add("--shots", &options.shots,
           "with --tasks: examples before each question; else as many as the task says")
      .at_least(0);
  command.options.add("--strict", &options.strict,
                      "a bad document is an error, not a counted warning");
  command.options.add("--json", &state->json, "the summary as one JSON object on standard output");
  command.footer =
      "Example: emo prepare --tokenizer tokenizer.json --output data/train train.jsonl.gz";
  command.run = [state]() -> absl::StatusOr<int> {
    absl::StatusOr<PrepareSummary> summary = prepare(state->prepare);
    if (!summary.ok()) return summary.status();
    if (state->json) std::printf("%s", to_text(to_json(*summary)).c_str());
    if (!state->json) print(*summary);
    return kExitDone;
  };
  return command;
}

Command data_show_command() {
  auto options = std::make_shared<ShowOptions>();
  Command command;
  command.name = "data show";
  command.summary = "Print a batch as training sees it: rows, spans, document ids, sources";
  command.options.add("DIR", &options->folder, "folder that emo prepare wrote").required();
  command.options.add("--batch", &options->batch, "number of the batch, from 0")
      .at_least(0)
      .show_default();
  command.options.add("--batch-size", &options->batch_size, "rows in a batch")
      .at_least(1)
      .show_default();
  command.options.add("--sequence-length", &options->loader.sequence_length, "tokens in a row")
      .range(2, 1 << 24)
      .show_default();
  command.options.add("--seed", &options->loader.seed, "run.seed, which decides the order")
      .show_default();
  command.options.add("--sequential", &options->sequential, "data.order: sequential");
  command.options.add("--whole", &options->whole, "data.documents: whole");
  command.options.add("--eos-routes-with-next", &options->eos_next,
                      "routing.eos_routes_with: next");
  command.footer = "Example: emo data show data/train --batch 0 --sequence-length 512";
  command.run = [options] { return show(*options); };
  return command;
}

}  // namespace emo

#include "data/prepare/commands.h"

#include <cstdio>
#include <memory>

#include "absl/strings/str_format.h"
#include "data/files/json.h"
#include "data/prepare/prepare.h"
#include "data/program/exit_code.h"

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
  absl::PrintF("%-28s %10d %12d %12d %8.2f\n", label, source.documents, source.tokens, source.bytes,
               static_cast<double>(source.bytes) / static_cast<double>(source.tokens));
}

void print(const PrepareSummary& summary) {
  for (const std::string& warning : summary.first_warnings) {
    std::fprintf(stderr, "emo: warning: %s\n", warning.c_str());
  }
  if (summary.skipped > 0) {
    absl::FPrintF(stderr, "emo: warning: %d documents skipped (--strict makes that an error)\n",
                  summary.skipped);
  }
  std::printf("%-28s %10s %12s %12s %8s\n", "source", "documents", "tokens", "bytes", "B/token");
  for (const auto& [label, source] : summary.sources) print_row(label, source);
  print_row("total", summary.total);
  std::printf("%.1f s, %.1f MB/s\n", summary.seconds,
              static_cast<double>(summary.total.bytes) / summary.seconds / 1e6);
}

}  // namespace

Command prepare_command() {
  struct State {
    PrepareOptions prepare;
    bool json = false;
    bool no_ids = false;
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
  command.options.add("--no-ids", &state->no_ids,
                      "write no file of the documents' ids; they are then known by number");
  command.options.add("--json", &state->json, "the summary as one JSON object on standard output");
  command.footer =
      "Example: emo prepare --tokenizer tokenizer.json --output data/train train.jsonl.gz";
  command.run = [state]() -> absl::StatusOr<int> {
    state->prepare.with_ids = !state->no_ids;
    absl::StatusOr<PrepareSummary> summary = prepare(state->prepare);
    if (!summary.ok()) return summary.status();
    if (state->json) std::printf("%s", to_text(to_json(*summary)).c_str());
    if (!state->json) print(*summary);
    return kExitDone;
  };
  return command;
}

}  // namespace emo

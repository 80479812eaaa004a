#include <cstdio>
#include <memory>

#include "absl/strings/str_format.h"
#include "data/prepare/commands.h"
#include "data/program/exit_code.h"
#include "data/rows/dataset_chunks.h"
#include "data/rows/loader.h"

namespace emo {
namespace {

struct Options {
  std::string folder;
  int64_t batch = 0;       // its number
  int64_t batch_size = 4;  // rows
  LoaderOptions loader;
  bool sequential = false;
  bool whole = false;
  bool eos_next = false;
};

// The names of documents, read a shard at a time when the first of it is asked for.
class DocumentNames {
 public:
  explicit DocumentNames(const TokenDataset& data) : data_(data), ids_(data.num_shards()) {}

  // "" for what fills a row.
  absl::StatusOr<std::string> of(const SpanSource& span) {
    if (span.document < 0) return "";
    std::vector<std::string>& ids = ids_[span.shard];
    if (ids.empty()) {
      absl::StatusOr<std::vector<std::string>> read = data_.document_ids(span.shard);
      if (!read.ok()) return read.status();
      ids = *std::move(read);
    }
    return ids[span.document];
  }

 private:
  const TokenDataset& data_;
  std::vector<std::vector<std::string>> ids_;  // by shard; empty: not read yet
};

void print_row(const Batch& batch, int64_t row) {
  absl::PrintF("row %d, sequence %d%s\n", row, batch.sequence_index[row],
               batch.filtered[row] ? ", filtered: no labels" : "");
}

// A document's tokens of a row of `batch`, from `begin` on.
void print_document(const Batch& batch, size_t i, int64_t begin, int64_t ordinal,
                    const std::string& source, const std::string& id) {
  const int64_t row = begin / batch.sequence_length;
  const int64_t row_begin = row * batch.sequence_length;
  const SpanSource& span = batch.span_sources[i];
  const bool filling = span.document < 0;
  absl::PrintF("  document (%d, %d)  tokens [%d, %d)  %-20s %s%s\n", batch.sequence_index[row],
               ordinal, begin - row_begin, batch.document_ends[i] - row_begin,
               filling ? "-" : source, filling ? "filling" : id,
               span.given > 0 ? absl::StrFormat("  (%d given)", span.given) : "");
}

absl::Status print_documents(const DatasetChunks& chunks, const Batch& batch) {
  DocumentNames names(chunks.dataset());
  int64_t begin = 0;
  int64_t ordinal = 0;  // of the document in its row
  for (size_t i = 0; i < batch.document_ends.size(); ++i) {
    if (begin % batch.sequence_length == 0) {
      print_row(batch, begin / batch.sequence_length);
      ordinal = 0;
    }
    const SpanSource& span = batch.span_sources[i];
    absl::StatusOr<std::string> id = names.of(span);
    if (!id.ok()) return id.status();
    print_document(batch, i, begin, ordinal++, chunks.sources()[span.source], *id);
    begin = batch.document_ends[i];
  }
  return absl::OkStatus();
}

absl::StatusOr<int> show(Options options) {
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
  absl::PrintF("batch %d: %d rows of %d tokens; %d chunks in the data\n", options.batch,
               batch->rows, batch->sequence_length, (*chunks)->num_chunks());
  absl::Status status = print_documents(**chunks, *batch);
  if (!status.ok()) return status;
  absl::PrintF("routing spans end at:");
  for (const int32_t end : batch->routing_ends) absl::PrintF(" %d", end);
  absl::PrintF("\n");
  return kExitDone;
}

}  // namespace

Command data_show_command() {
  auto options = std::make_shared<Options>();
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

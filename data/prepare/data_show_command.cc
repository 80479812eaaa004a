#include <cstdio>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/files/file_system.h"
#include "data/order/reference_order.h"
#include "data/prepare/commands.h"
#include "data/prepare/token_file_options.h"
#include "data/program/exit_code.h"
#include "data/rows/dataset_chunks.h"
#include "data/rows/loader.h"

namespace emo {
namespace {

struct Options {
  TokenFileOptions data;   // or a folder of emo prepare
  int64_t batch = 0;       // its number
  int64_t batch_size = 4;  // rows
  LoaderOptions loader;
  std::string order = "ours";
  std::string index;
  bool whole = false;
  bool eos_next = false;
};

// What the data is, one of two.
struct Shown {
  std::unique_ptr<DatasetChunks> prepared;
  std::unique_ptr<TokenChunks> files;
  const ChunkSource& chunks() const {
    return prepared ? static_cast<const ChunkSource&>(*prepared) : *files;
  }
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

absl::Status print_row(const Shown& data, const LoaderOptions& loader, const Batch& batch,
                       int64_t row) {
  std::string place;
  if (data.files) {
    absl::StatusOr<int64_t> chunk =
        chunk_of_sequence(*data.files, loader, batch.sequence_index[row]);
    if (!chunk.ok()) return chunk.status();
    const auto [file, first_token] = data.files->place(*chunk);
    place = absl::StrFormat(", %s tokens [%d, %d)", data.files->file(file).path(), first_token,
                            first_token + batch.sequence_length);
  }
  absl::PrintF("row %d, sequence %d%s%s\n", row, batch.sequence_index[row], place,
               batch.filtered[row] ? ", filtered: no labels" : "");
  return absl::OkStatus();
}

// A document's tokens of a row of `batch`, from `begin` on.
void print_document(const Batch& batch, size_t i, int64_t begin, int64_t ordinal,
                    const std::string& source, const std::string& id) {
  const int64_t row = begin / batch.sequence_length;
  const int64_t row_begin = row * batch.sequence_length;
  const SpanSource& span = batch.span_sources[i];
  const bool filling = span.shard < 0;
  absl::PrintF("  document (%d, %d)  tokens [%d, %d)  %-20s %s%s\n", batch.sequence_index[row],
               ordinal, begin - row_begin, batch.document_ends[i] - row_begin,
               filling ? "-" : source, filling ? "filling" : id,
               span.given > 0 ? absl::StrFormat("  (%d given)", span.given) : "");
}

absl::Status print_documents(const Shown& data, const LoaderOptions& loader, const Batch& batch) {
  std::optional<DocumentNames> names;
  if (data.prepared) names.emplace(data.prepared->dataset());
  int64_t begin = 0;
  int64_t ordinal = 0;  // of the document in its row
  for (size_t i = 0; i < batch.document_ends.size(); ++i) {
    if (begin % batch.sequence_length == 0) {
      absl::Status status = print_row(data, loader, batch, begin / batch.sequence_length);
      if (!status.ok()) return status;
      ordinal = 0;
    }
    const SpanSource& span = batch.span_sources[i];
    absl::StatusOr<std::string> id = names ? names->of(span) : "";
    if (!id.ok()) return id.status();
    print_document(batch, i, begin, ordinal++, data.chunks().sources()[span.source], *id);
    begin = batch.document_ends[i];
  }
  return absl::OkStatus();
}

absl::StatusOr<Shown> open(const Options& options) {
  Shown shown;
  const int64_t S = options.data.sequence_length;
  if (is_directory(options.data.data)) {
    absl::StatusOr<std::unique_ptr<DatasetChunks>> prepared = DatasetChunks::open(
        options.data.data, S, options.whole ? DocumentPacking::kWhole : DocumentPacking::kCut);
    if (!prepared.ok()) return prepared.status();
    shown.prepared = *std::move(prepared);
    return shown;
  }
  if (options.whole) {
    return absl::InvalidArgumentError(
        "--whole: token files are cut into rows; whole documents need a folder of emo prepare");
  }
  const int64_t group = options.order == "reference" ? reference_group(S) : 1;
  absl::StatusOr<std::unique_ptr<TokenChunks>> files = open_token_files(options.data, group);
  if (!files.ok()) return files.status();
  shown.files = *std::move(files);
  return shown;
}

absl::StatusOr<LoaderOptions> order_as(const Options& options, const ChunkSource& chunks) {
  LoaderOptions loader = options.loader;
  loader.sequence_length = options.data.sequence_length;
  if (options.order == "sequential") loader.order = Order::kSequential;
  if (options.eos_next) loader.eos_routes_with = EosRoutesWith::kNext;
  if (options.order != "reference") return loader;
  absl::StatusOr<std::unique_ptr<ReferenceOrder>> order =
      ReferenceOrder::create({chunks.num_chunks(), reference_group(loader.sequence_length),
                              options.batch_size, loader.seed, options.index});
  if (!order.ok()) return order.status();
  loader.order = Order::kReference;
  loader.reference = *std::move(order);
  return loader;
}

absl::StatusOr<int> show(const Options& options) {
  absl::StatusOr<Shown> data = open(options);
  if (!data.ok()) return data.status();
  if (data->prepared && options.order == "reference") {
    return absl::InvalidArgumentError(absl::StrCat("--order reference: of token files only; ",
                                                   options.data.data, " is a folder"));
  }
  absl::StatusOr<LoaderOptions> loader = order_as(options, data->chunks());
  if (!loader.ok()) return loader.status();
  const SequenceRange range{options.batch * options.batch_size,
                            (options.batch + 1) * options.batch_size};
  absl::StatusOr<Batch> batch = load(data->chunks(), *loader, range);
  if (!batch.ok()) return batch.status();
  absl::PrintF("batch %d: %d rows of %d tokens; %d chunks in the data\n", options.batch,
               batch->rows, batch->sequence_length, data->chunks().num_chunks());
  absl::Status status = print_documents(*data, *loader, *batch);
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
  options->data.sequence_length = LoaderOptions().sequence_length;
  add_token_file_options(&command.options, &options->data, "folder that emo prepare wrote, ");
  command.options.add("--batch", &options->batch, "number of the batch, from 0")
      .at_least(0)
      .show_default();
  command.options.add("--batch-size", &options->batch_size, "rows in a batch")
      .at_least(1)
      .show_default();
  command.options.add("--seed", &options->loader.seed, "data.seed, which decides the order")
      .show_default();
  command.options.add("--order", &options->order, "data.order")
      .one_of({"ours", "sequential", "reference"})
      .show_default();
  command.options.add("--index", &options->index,
                      "data.index: folder that keeps the reference's order");
  command.options.add("--whole", &options->whole, "data.documents: whole");
  command.options.add("--eos-routes-with-next", &options->eos_next,
                      "routing.eos_routes_with: next");
  command.footer =
      "Of token files, --batch-size is train.batch where --order is reference.\n"
      "Example: emo data show data/train --batch 0 --sequence-length 512\n"
      "         emo data show tokens/part-00.npy --vocab-size 100278 --eos-id 100257";
  command.run = [options] { return show(*options); };
  return command;
}

}  // namespace emo

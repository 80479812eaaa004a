#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/prepare/commands.h"
#include "data/prepare/data_options.h"
#include "data/program/exit_code.h"
#include "data/rows/loader.h"
#include "data/shards/token_dataset.h"

namespace emo {
namespace {

struct ShowOptions {
  DataOptions data;
  int64_t batch = 0;  // its number
  bool eos_next = false;
};

// The names of documents, read a shard at a time when the first of it is asked for.
class DocumentNames {
 public:
  // `folder` of emo prepare; "": of token files, whose documents have numbers, if an index says so.
  static absl::StatusOr<DocumentNames> open(const std::string& folder) {
    DocumentNames names;
    if (folder.empty()) return names;
    absl::StatusOr<DatasetInfo> info = read_dataset_info(folder);
    if (!info.ok()) return info.status();
    names.folder_ = folder;
    names.shards_ = info->shards;
    names.ids_.resize(names.shards_.size());
    return names;
  }

  // "" for what fills a row, and where nothing is known.
  absl::StatusOr<std::string> of(const SpanSource& span) {
    if (span.document < 0) return "";
    if (folder_.empty()) return absl::StrCat("number ", span.document);
    std::vector<std::string>& ids = ids_[span.shard];
    if (ids.empty()) {
      absl::StatusOr<std::vector<std::string>> read = document_ids(folder_, shards_[span.shard]);
      if (!read.ok()) return read.status();
      ids = *std::move(read);
    }
    return ids[span.document];
  }

 private:
  DocumentNames() = default;
  std::string folder_;
  std::vector<DatasetInfo::Shard> shards_;
  std::vector<std::vector<std::string>> ids_;  // by shard; empty: not read yet
};

absl::Status print_row(const TokenChunks& chunks, const LoaderOptions& loader, const Batch& batch,
                       int64_t row) {
  absl::StatusOr<int64_t> chunk = chunk_of_sequence(chunks, loader, batch.sequence_index[row]);
  if (!chunk.ok()) return chunk.status();
  absl::StatusOr<TokenChunks::Place> place = chunks.place(*chunk);
  if (!place.ok()) return place.status();
  absl::PrintF("row %d, sequence %d, %s from token %d on%s\n", row, batch.sequence_index[row],
               chunks.file(place->file).path(), place->first_token,
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

absl::Status print_documents(const TokenChunks& chunks, const LoaderOptions& loader,
                             const Batch& batch, DocumentNames* names) {
  int64_t begin = 0;
  int64_t ordinal = 0;  // of the document in its row
  for (size_t i = 0; i < batch.document_ends.size(); ++i) {
    if (begin % batch.sequence_length == 0) {
      absl::Status status = print_row(chunks, loader, batch, begin / batch.sequence_length);
      if (!status.ok()) return status;
      ordinal = 0;
    }
    const SpanSource& span = batch.span_sources[i];
    absl::StatusOr<std::string> id = names->of(span);
    if (!id.ok()) return id.status();
    print_document(batch, i, begin, ordinal++, chunks.sources()[span.source], *id);
    begin = batch.document_ends[i];
  }
  return absl::OkStatus();
}

absl::StatusOr<int> show(const ShowOptions& options) {
  const RowsOptions how = rows_of(options.data);
  absl::StatusOr<Rows> rows = open_rows(how);
  if (!rows.ok()) return rows.status();
  const TokenChunks& chunks = *rows->chunks;
  LoaderOptions loader = loader_of(how, *rows);
  if (options.eos_next) loader.eos_routes_with = EosRoutesWith::kNext;
  absl::StatusOr<Batch> batch =
      load(chunks, loader, {options.batch * how.batch, (options.batch + 1) * how.batch});
  if (!batch.ok()) return batch.status();
  absl::StatusOr<DocumentNames> names = DocumentNames::open(is_prepared(how) ? how.paths[0] : "");
  if (!names.ok()) return names.status();
  absl::PrintF("batch %d: %d rows of %d tokens; %d chunks in the data\n", options.batch,
               batch->rows, batch->sequence_length, chunks.num_chunks());
  absl::Status status = print_documents(chunks, loader, *batch, &*names);
  if (!status.ok()) return status;
  absl::PrintF("routing spans end at:");
  for (const int32_t end : batch->routing_ends) absl::PrintF(" %d", end);
  absl::PrintF("\n");
  return kExitDone;
}

}  // namespace

Command data_show_command() {
  auto options = std::make_shared<ShowOptions>();
  options->data.rows.batch = 4;
  Command command;
  command.name = "data show";
  command.summary = "Print a batch as training sees it: rows, spans, document ids, sources";
  add_data_options(&command.options, &options->data, TakesFolders::kYes);
  add_row_options(&command.options, &options->data);
  command.options.add("--batch", &options->batch, "number of the batch, from 0")
      .at_least(0)
      .show_default();
  command.options.add("--batch-size", &options->data.rows.batch, "rows in a batch (train.batch)")
      .at_least(1)
      .show_default();
  command.options.add("--eos-routes-with-next", &options->eos_next,
                      "routing.eos_routes_with: next");
  command.footer =
      "Example: emo data show data/train --batch 0 --sequence-length 512\n"
      "         emo data show tokens/part-00.npy --vocab-size 100278 --eos-id 100257";
  command.run = [options] { return show(*options); };
  return command;
}

}  // namespace emo

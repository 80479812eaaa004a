#include "data/rows/open_rows.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "data/files/file_system.h"

namespace emo {
namespace {

absl::StatusOr<ShardSet> open_set(const RowsOptions& options, const Mix& mix) {
  const std::string rows = fingerprint_text(options.packing);
  if (is_prepared(options)) return open_prepared_set(options.paths[0], rows, options.open);
  FileSetOptions files;
  files.vocab_size = options.vocab_size;
  files.width = token_width(options.dtype, options.vocab_size);
  files.eos_id = static_cast<int32_t>(options.eos_id);
  files.index = options.index;
  files.open = options.open;
  files.rows = rows + fingerprint_text(mix);
  return open_file_set(mix.files, files);
}

absl::StatusOr<std::shared_ptr<const MixOrder>> order_of(const Mix& mix, const TokenChunks& chunks,
                                                         const RowsOptions& options) {
  if (options.order == Order::kReference) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.mix, ": data.order reference takes files as they are, without weights"));
  }
  std::vector<WeightedSource> sources;
  for (const MixSource& source : mix.sources) {
    const int64_t first = chunks.first_chunks()[source.first];
    sources.push_back({source.label, first, chunks.first_chunks()[source.end] - first,
                       source.weight, source.max_epochs});
  }
  absl::StatusOr<std::unique_ptr<MixOrder>> order =
      MixOrder::create(std::move(sources), options.order, options.seed);
  if (!order.ok()) return order.status();
  return std::shared_ptr<const MixOrder>(*std::move(order));
}

}  // namespace

bool is_prepared(const RowsOptions& options) {
  return options.mix.empty() && options.paths.size() == 1 && is_directory(options.paths[0]);
}

absl::Status check_options(const RowsOptions& options) {
  if (options.order == Order::kReference && is_prepared(options)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "data.order reference is of token files, whose chunks it keeps together; name those of ",
        options.paths[0], ": '", options.paths[0], "/tokens-*.npy', and its end token"));
  }
  if (options.order == Order::kReference && options.packing != DocumentPacking::kCut) {
    return absl::InvalidArgumentError(
        "data.order reference is of rows that cut documents: data.documents=cut");
  }
  if (is_prepared(options)) return absl::OkStatus();
  if (options.vocab_size < 0 || options.eos_id < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.mix.empty() ? options.paths[0] : options.mix,
                     ": token files say neither their vocabulary nor what ends a document: give "
                     "--vocab-size and --eos-id (in a config, data.eos_id)"));
  }
  if (options.eos_id >= options.vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the end token ", options.eos_id, " is not below the vocabulary's ", options.vocab_size));
  }
  return absl::OkStatus();
}

absl::StatusOr<Mix> list_token_files(const RowsOptions& options) {
  if (!options.mix.empty()) return read_mix(options.mix, options.names);
  Mix mix;
  for (const std::string& path : options.paths) {
    if (is_directory(path)) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": a folder among several paths; name its token files: '", path, "/tokens-*.npy'"));
    }
    absl::StatusOr<std::vector<MixFile>> files = files_of_pattern(path);
    if (!files.ok()) return files.status();
    mix.files.insert(mix.files.end(), files->begin(), files->end());
  }
  return mix;
}

absl::StatusOr<Rows> open_rows(const RowsOptions& options) {
  absl::StatusOr<Mix> mix = is_prepared(options) ? Mix() : list_token_files(options);
  if (!mix.ok()) return mix.status();
  absl::Status status = check_options(options);
  if (!status.ok()) return status;
  absl::StatusOr<ShardSet> set = open_set(options, *mix);
  if (!set.ok()) return set.status();
  const int64_t group =
      options.order == Order::kReference ? reference_group(options.sequence_length) : 1;
  absl::StatusOr<std::unique_ptr<TokenChunks>> chunks = TokenChunks::create(
      *std::move(set),
      {options.sequence_length, group, options.packing, options.index, options.open});
  if (!chunks.ok()) return chunks.status();
  Rows rows;
  rows.chunks = *std::move(chunks);
  if (!mix->sources.empty()) {
    absl::StatusOr<std::shared_ptr<const MixOrder>> order = order_of(*mix, *rows.chunks, options);
    if (!order.ok()) return order.status();
    rows.mix = *std::move(order);
    return rows;
  }
  if (options.order != Order::kReference) return rows;
  absl::StatusOr<std::unique_ptr<ReferenceOrder>> order = ReferenceOrder::create(
      {rows.chunks->num_chunks(), group, options.batch, options.seed, options.index});
  if (!order.ok()) return order.status();
  rows.reference = *std::move(order);
  return rows;
}

}  // namespace emo

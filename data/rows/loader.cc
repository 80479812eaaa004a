#include "data/rows/loader.h"

#include <algorithm>

namespace emo {
namespace {

// Tokens that a document gives are predicted by nothing, not by what stands before it either.
void ignore_given(const std::vector<int32_t>& ends, const std::vector<SpanSource>& sources,
                  std::vector<int32_t>* labels) {
  int64_t begin = 0;
  for (size_t i = 0; i < ends.size(); ++i) {
    for (int64_t t = std::max<int64_t>(begin, 1); t < begin + sources[i].given; ++t) {
      (*labels)[t - 1] = kIgnoredLabel;
    }
    begin = ends[i];
  }
}

}  // namespace

LoaderOptions loader_of(const RowsOptions& options, const Rows& rows) {
  LoaderOptions loader;
  loader.sequence_length = options.sequence_length;
  loader.order = options.order;
  loader.seed = options.seed;
  loader.reference = rows.reference;
  loader.mix = rows.mix;
  return loader;
}

absl::StatusOr<int64_t> chunk_of_sequence(const ChunkSource& source, const LoaderOptions& options,
                                          int64_t number) {
  const int64_t sequence = number - options.first_sequence;
  if (options.mix != nullptr) return options.mix->chunk(sequence);
  if (options.order == Order::kReference) return options.reference->chunk(sequence);
  return chunk_at(sequence, source.num_chunks(), options.order, options.seed);
}

SequenceRange share_of(SequenceRange range, int64_t rank, int64_t world) {
  const int64_t base = range.size() / world;
  const int64_t extra = range.size() % world;
  const int64_t first = rank * base + std::min(rank, extra);
  const int64_t count = base + (rank < extra ? 1 : 0);
  return {range[first], count == 0 ? range[first] : range[first + count - 1] + 1, range.stride};
}

SequenceRange column_of(SequenceRange range, int64_t rank, int64_t world) {
  const int64_t begin = std::min(range[rank], range.end);
  return {begin, range.end, range.stride * world};
}

absl::StatusOr<Batch> load(const ChunkSource& source, const LoaderOptions& options,
                           SequenceRange range) {
  const int64_t S = options.sequence_length;
  Batch batch;
  batch.rows = range.size();
  batch.sequence_length = S;
  batch.tokens.resize(batch.rows * S);
  std::vector<int32_t> ends;  // of one chunk
  for (int64_t row = 0; row < batch.rows; ++row) {
    const int64_t sequence = range[row];
    int32_t* tokens = batch.tokens.data() + row * S;
    ends.clear();
    const absl::StatusOr<int64_t> chunk = chunk_of_sequence(source, options, sequence);
    if (!chunk.ok()) return chunk.status();
    absl::Status status = source.read(*chunk, tokens, &ends, &batch.span_sources);
    if (!status.ok()) return status;
    for (const int32_t end : ends) {
      batch.document_ends.push_back(static_cast<int32_t>(row * S) + end);
    }
    batch.sequence_index.push_back(sequence);
    const SpanSource& last = batch.span_sources.back();  // filling repeats itself, rightly
    const int64_t filling = last.document < 0 ? last.given : 0;
    batch.filtered.push_back(
        options.filter && is_repetitive(tokens, S - filling, *options.filter) ? 1 : 0);
  }
  batch.labels = next_token_labels(batch.tokens, S);
  ignore_given(batch.document_ends, batch.span_sources, &batch.labels);
  for (int64_t row = 0; row < batch.rows; ++row) {
    if (!batch.filtered[row]) continue;
    std::fill_n(batch.labels.begin() + row * S, S, kIgnoredLabel);
  }
  batch.attention_ends = options.document_attention ? batch.document_ends : row_ends(batch.rows, S);
  batch.routing_ends =
      routing_ends(batch.document_ends, batch.tokens, S, options.eos_routes_with, source.eos_id());
  return batch;
}

}  // namespace emo

// What the loader hands to training: rows of tokens that know their documents.
#pragma once

#include <cstdint>
#include <vector>

namespace emo {

// Which document a span belongs to, for people and for per-source results.
struct SpanSource {
  int32_t source = 0;     // index in ChunkSource::sources()
  int64_t document = -1;  // number within `shard`; -1 where documents are made up
  int64_t shard = -1;
  int64_t given = 0;  // tokens of the span, its first ones, that are not to be predicted
};

// B rows of S tokens; B may be 0. Spans are half-open ranges of the flattened tokens, given by
// their ends: span i is [ends[i - 1], ends[i]), and no span crosses the end of a row.
struct Batch {
  int64_t rows = 0;                      // B
  int64_t sequence_length = 0;           // S
  std::vector<int32_t> tokens;           // [B, S]
  std::vector<int32_t> labels;           // [B, S] the next token of the row; -100: not predicted
  std::vector<int32_t> attention_ends;   // [Na] spans that attention is confined to
  std::vector<int32_t> routing_ends;     // [Nr] spans that share one expert pool
  std::vector<SpanSource> span_sources;  // [Nd] of the documents, not of rows, in order
  std::vector<int32_t> document_ends;    // [Nd]
  std::vector<int64_t> sequence_index;   // [B] of each row, counted over the whole run
  std::vector<uint8_t> filtered;         // [B] 1: the instance filter took the row's labels
};

constexpr int32_t kIgnoredLabel = -100;

// Which of the two documents at a border an end-of-document token shares its pool with.
enum class EosRoutesWith { kPrevious, kNext };

// From document ends to routing ends [Nr]: kPrevious copies them; kNext cuts before every `eos`
// that is not the first token of its row (the reference's training code, emo-facts 1.3).
// REQUIRES: tokens [B, S] with S = sequence_length >= 1, as for the two below.
std::vector<int32_t> routing_ends(const std::vector<int32_t>& document_ends,
                                  const std::vector<int32_t>& tokens, int64_t sequence_length,
                                  EosRoutesWith convention, int32_t eos);

// The ends of B rows of S tokens.
std::vector<int32_t> row_ends(int64_t rows, int64_t sequence_length);

// Labels of rows: the next token, the last of each row ignored. [B, S]
std::vector<int32_t> next_token_labels(const std::vector<int32_t>& tokens, int64_t sequence_length);

}  // namespace emo

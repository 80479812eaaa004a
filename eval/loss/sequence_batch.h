// Token sequences as one batch of a forward pass: each alone, whatever lies beside it.
#pragma once

#include <cstdint>
#include <vector>

#include "model/micro_batch.h"

namespace emo {

struct Sequence {
  std::vector<int32_t> tokens;
  int64_t context = 1;   // its first tokens, which are given and not predicted; at least 1
  int64_t number = 0;    // its document's, for pool sizes
  int32_t ordinal = 0;   // of the piece in the document
  int64_t position = 0;  // of its first token
};

// One row with a span for each sequence; no row where there is no sequence.
// REQUIRES: every sequence has a token.
Slice sequence_batch(const std::vector<Sequence>& sequences);

// Deals sequences of these lengths, in order, into batches of about tokens_per_batch, as even as
// they go and so many that each of `ranks` gets the same number, some of them empty: the batch of
// each. `batches` is set to their number.
std::vector<int64_t> deal_lengths(const std::vector<int64_t>& lengths, int64_t tokens_per_batch,
                                  int64_t ranks, int64_t* batches);

}  // namespace emo

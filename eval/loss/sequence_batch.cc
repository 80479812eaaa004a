#include "eval/loss/sequence_batch.h"

#include <algorithm>

#include "train/step/batch_tensors.h"

namespace emo {

Slice sequence_batch(const std::vector<Sequence>& sequences) {
  Batch batch;
  batch.rows = sequences.empty() ? 0 : 1;
  for (const Sequence& sequence : sequences) {
    const auto length = static_cast<int64_t>(sequence.tokens.size());
    batch.tokens.insert(batch.tokens.end(), sequence.tokens.begin(), sequence.tokens.end());
    for (int64_t next = 1; next <= length; ++next) {
      const bool predicted = next >= sequence.context && next < length;
      batch.labels.push_back(predicted ? sequence.tokens[next] : kIgnoredLabel);
    }
    batch.document_ends.push_back(static_cast<int32_t>(batch.tokens.size()));
  }
  batch.sequence_length = std::max<int64_t>(1, static_cast<int64_t>(batch.tokens.size()));
  batch.attention_ends = batch.routing_ends = batch.document_ends;
  batch.sequence_index.assign(batch.rows, 0);
  batch.filtered.assign(batch.rows, 0);
  Slice tensors = to_tensors(batch);
  // Positions start anew with each sequence, and pool sizes belong to the document.
  auto* positions = tensors.positions.mutable_data_ptr<int32_t>();
  auto* number = tensors.sequence_index.mutable_data_ptr<int64_t>();
  auto* ordinal = tensors.ordinal.mutable_data_ptr<int32_t>();
  for (size_t i = 0; i < sequences.size(); ++i) {
    for (size_t p = 0; p < sequences[i].tokens.size(); ++p) {
      *positions++ = static_cast<int32_t>(sequences[i].position + static_cast<int64_t>(p));
    }
    number[i] = sequences[i].number;
    ordinal[i] = sequences[i].ordinal;
  }
  return tensors;
}

std::vector<int64_t> deal_lengths(const std::vector<int64_t>& lengths, int64_t tokens_per_batch,
                                  int64_t ranks, int64_t* batches) {
  int64_t tokens = 0;
  for (const int64_t length : lengths) tokens += length;
  *batches = 0;
  if (tokens == 0) return std::vector<int64_t>(lengths.size(), 0);
  *batches = (tokens + ranks * tokens_per_batch - 1) / (ranks * tokens_per_batch) * ranks;
  std::vector<int64_t> batch_of;
  int64_t begin = 0;
  for (const int64_t length : lengths) {
    // The batch in which the sequence's middle lies.
    batch_of.push_back((2 * begin + length) * *batches / (2 * tokens));
    begin += length;
  }
  return batch_of;
}

}  // namespace emo

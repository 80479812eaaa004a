// Chunks of prepared text: each shard is cut into consecutive chunks of S tokens; what is left at
// its end, less than S tokens, is not used (as the reference's concatenate-and-chunk).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/chunk_source.h"
#include "data/token_shards.h"

namespace emo {

class DatasetChunks : public ChunkSource {
 public:
  // DataLoss where no shard holds S tokens.
  static absl::StatusOr<std::unique_ptr<DatasetChunks>> open(const std::string& folder,
                                                             int64_t sequence_length);

  int64_t num_chunks() const override { return first_chunk_.back(); }
  absl::Status read(int64_t chunk, int32_t* tokens, std::vector<int32_t>* document_ends,
                    std::vector<SpanSource>* sources) const override;
  const std::vector<std::string>& sources() const override { return dataset_.info().sources; }
  int64_t vocab_size() const override { return dataset_.info().vocab_size; }
  int32_t eos_id() const override { return dataset_.info().eos_id; }
  std::string fingerprint() const override;
  const TokenDataset& dataset() const { return dataset_; }

 private:
  DatasetChunks(TokenDataset dataset, int64_t sequence_length);
  TokenDataset dataset_;
  int64_t sequence_length_;
  std::vector<int64_t> first_chunk_;  // [shards + 1]
};

}  // namespace emo

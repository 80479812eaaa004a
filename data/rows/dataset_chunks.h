// Chunks of prepared text, packed in one of two ways.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/rows/chunk_source.h"
#include "data/shards/token_shards.h"

namespace emo {

enum class DocumentPacking {
  kCut,    // each shard is cut into consecutive chunks of S tokens; what is left at its end, less
           // than S tokens, is not used (the reference's concatenate-and-chunk)
  kWhole,  // each chunk holds as many whole documents, one after another, as fit; the rest is
           // filled with end-of-document tokens that are given and not predicted. A document of
           // more than S tokens keeps its last S
};

class DatasetChunks : public ChunkSource {
 public:
  // Errors as of TokenDataset::open; DataLoss where no shard holds S tokens that are to be cut.
  // REQUIRES: sequence_length >= 1.
  static absl::StatusOr<std::unique_ptr<DatasetChunks>> open(const std::string& folder,
                                                             int64_t sequence_length,
                                                             DocumentPacking packing);

  int64_t num_chunks() const override;
  absl::Status read(int64_t chunk, int32_t* tokens, std::vector<int32_t>* document_ends,
                    std::vector<SpanSource>* sources) const override;
  const std::vector<std::string>& sources() const override { return dataset_.info().sources; }
  int64_t vocab_size() const override { return dataset_.info().vocab_size; }
  int32_t eos_id() const override { return dataset_.info().eos_id; }
  std::string fingerprint() const override;
  bool matches(const std::string& fingerprint) const override;
  const TokenDataset& dataset() const { return dataset_; }

 private:
  // Documents [first, end) of a shard.
  struct WholeChunk {
    int64_t shard, first, end;
  };
  DatasetChunks(TokenDataset dataset, int64_t sequence_length, DocumentPacking packing);
  void pack_whole();
  std::string fingerprint_with(const std::string& tokenizer) const;
  absl::Status read_cut(int64_t chunk, int32_t* tokens, std::vector<int32_t>* document_ends,
                        std::vector<SpanSource>* sources) const;
  absl::Status read_whole(const WholeChunk& chunk, int32_t* tokens,
                          std::vector<int32_t>* document_ends,
                          std::vector<SpanSource>* sources) const;
  TokenDataset dataset_;
  int64_t sequence_length_;
  DocumentPacking packing_;
  std::vector<int64_t> first_chunk_;  // kCut: [shards + 1]
  std::vector<WholeChunk> whole_;     // kWhole
};

}  // namespace emo

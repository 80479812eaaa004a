// Made-up documents for trying things and for tests: no files, no end, the same for the same seed.
// Each document has a topic; a topic has words of its own and shares others, and a word says much
// about the next, so that a model learns and experts can specialise.
#pragma once

#include <string>
#include <vector>

#include "data/rows/chunk_source.h"

namespace emo {

struct SyntheticOptions {
  int64_t vocab_size = 256;  // id 0 is the end of a document
  int64_t topics = 8;
  int64_t min_length = 16;   // tokens of a document, its end included
  int64_t max_length = 128;  //
  uint64_t seed = 0;
};

class SyntheticChunks : public ChunkSource {
 public:
  // REQUIRES: vocab_size >= 2, topics >= 1, 1 <= min_length <= max_length, sequence_length >= 1.
  SyntheticChunks(const SyntheticOptions& options, int64_t sequence_length);

  int64_t num_chunks() const override { return 0; }
  absl::Status read(int64_t chunk, int32_t* tokens, std::vector<int32_t>* document_ends,
                    std::vector<SpanSource>* sources) const override;
  const std::vector<std::string>& sources() const override { return topics_; }
  int64_t vocab_size() const override { return options_.vocab_size; }
  int32_t eos_id() const override { return 0; }
  std::string fingerprint() const override;

 private:
  SyntheticOptions options_;
  int64_t sequence_length_;
  std::vector<std::string> topics_;  // "topic-0", ...
};

}  // namespace emo

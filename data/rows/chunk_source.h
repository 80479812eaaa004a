// Where rows come from: a sequence of chunks of S tokens, each addressable on its own, so that any
// rank can produce any row of the run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "data/rows/batch.h"

namespace emo {

class ChunkSource {
 public:
  virtual ~ChunkSource() = default;
  // Distinct chunks of S tokens; 0 where there is no end (synthetic documents).
  virtual int64_t num_chunks() const = 0;
  // Fills tokens[0, S); appends the ends of the chunk's documents, counted from its start, the last
  // of them S, and for each its source.
  virtual absl::Status read(int64_t chunk, int32_t* tokens, std::vector<int32_t>* document_ends,
                            std::vector<SpanSource>* sources) const = 0;
  virtual const std::vector<std::string>& sources() const = 0;
  virtual int64_t vocab_size() const = 0;
  virtual int32_t eos_id() const = 0;
  // Identifies the data: equal for equal chunks. Written into checkpoints.
  virtual std::string fingerprint() const = 0;
  // Whether a checkpoint's fingerprint is of this data, also one that an earlier version wrote.
  virtual bool matches(const std::string& fingerprint) const {
    return fingerprint == this->fingerprint();
  }
};

}  // namespace emo

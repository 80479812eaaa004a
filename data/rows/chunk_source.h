// Where rows come from: a sequence of chunks of S tokens, each addressable on its own, so that any
// rank can produce any row of the run. S is said when a source is opened. What a source answers
// never changes, in any order of calls; all calls are thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "data/rows/batch.h"
#include "data/shards/data_file.h"

namespace emo {

class ChunkSource {
 public:
  virtual ~ChunkSource() = default;
  // Distinct chunks of S tokens; 0 where there is no end (synthetic documents).
  virtual int64_t num_chunks() const = 0;
  // Fills tokens[0, S); appends the ends of the chunk's documents, counted from its start,
  // ascending, the last of them S, and for each its source. DataLoss naming the place where the
  // stored tokens are damaged; what was filled and appended then means nothing. REQUIRES: 0 <=
  // chunk, below num_chunks() where that is not 0; tokens has room for S.
  virtual absl::Status read(int64_t chunk, int32_t* tokens, std::vector<int32_t>* document_ends,
                            std::vector<SpanSource>* sources) const = 0;
  virtual const std::vector<std::string>& sources() const = 0;  // names; see SpanSource
  virtual int64_t vocab_size() const = 0;                       // V: all tokens are below it
  virtual int32_t eos_id() const = 0;
  // The files that it reads, for people who look for what has changed; empty where it reads none.
  virtual const std::vector<DataFile>& files() const {
    static const std::vector<DataFile> none;
    return none;
  }
  // Identifies the data: equal for equal chunks. Written into checkpoints.
  virtual std::string fingerprint() const = 0;
  // Whether a checkpoint's fingerprint is of this data, also one that an earlier version wrote.
  virtual bool matches(const std::string& fingerprint) const {
    return fingerprint == this->fingerprint();
  }
};

}  // namespace emo

// Prepared text (dataset_info.h) whose documents are all known in memory, for what looks at each of
// them: evaluation, ranking. Training reads rows instead (rows/token_chunks.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/shards/dataset_info.h"
#include "data/shards/document_index.h"
#include "data/shards/token_file.h"

namespace emo {

// A shard's files, opened. Sizes have been compared with dataset.json.
struct PreparedShard {
  TokenFile tokens;
  DocumentIndex documents;
};

// NotFound without one of a shard's files, DataLoss where a file's size contradicts dataset.json
// (truncated shard); else as DocumentIndex::open().
absl::StatusOr<PreparedShard> open_prepared_shard(const std::string& folder,
                                                  const DatasetInfo& info, int64_t shard,
                                                  const OpenReadable& open = open_readable);

// Movable; views stay valid while it lives. Thread-safe. A `shard` is one of [0, num_shards())
// everywhere.
class TokenDataset {
 public:
  // Errors as of read_dataset_info(), open_prepared_shard() and DocumentIndex::read(). Tokens are
  // checked when they are read.
  static absl::StatusOr<TokenDataset> open(const std::string& folder);

  const DatasetInfo& info() const { return info_; }
  const std::string& folder() const { return folder_; }
  int64_t num_shards() const { return static_cast<int64_t>(shards_.size()); }
  int64_t tokens(int64_t shard) const { return info_.shards[shard].tokens; }
  const std::vector<StoredDocument>& documents(int64_t shard) const {
    return shards_[shard].documents;
  }

  // Copies tokens [begin, begin + count) of a shard. Fails as TokenFile::read() does,
  // naming the document of an id beyond the vocabulary.
  // REQUIRES: 0 <= begin, 0 <= count, begin + count <= tokens(shard); tokens has room for count.
  absl::Status read(int64_t shard, int64_t begin, int64_t count, int32_t* tokens) const;

 private:
  struct Shard {
    TokenFile tokens;
    std::vector<StoredDocument> documents;
  };
  std::string folder_;
  DatasetInfo info_;
  std::vector<Shard> shards_;
};

// The ids of a shard's documents, in order, from its file of ids; where that is missing, shard and
// number: "tokens-00000:17". DataLoss where it has another number of them.
absl::StatusOr<std::vector<std::string>> document_ids(const std::string& folder,
                                                      const DatasetInfo::Shard& shard);

}  // namespace emo

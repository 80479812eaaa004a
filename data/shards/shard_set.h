// The files of tokens that rows are made of, opened: a folder of emo prepare, or files as they lie.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/mix/mix.h"
#include "data/shards/data_file.h"
#include "data/shards/document_index.h"
#include "data/shards/token_file.h"

namespace emo {

struct TokenShard {
  TokenFile tokens;
  // Where its documents lie; without it they end at end-of-document tokens, and have no number.
  std::optional<DocumentIndex> documents;
  int32_t source = -1;  // of all its documents, in ShardSet::sources; -1: their records say
};

struct ShardSet {
  std::vector<TokenShard> shards;
  std::vector<std::string> sources;
  int64_t vocab_size = 0;
  int32_t eos_id = 0;
  std::vector<DataFile> files;  // [shards]
  // Equal for equal data: the one to write down, then those that earlier versions wrote.
  std::vector<std::string> fingerprints;
};

// Of a folder that emo prepare wrote. `rows`: how rows are made of it, a part of the fingerprints;
// fingerprint_text(). Fails as read_dataset_info() and open_prepared_shard().
absl::StatusOr<ShardSet> open_prepared_set(const std::string& folder, const std::string& rows = "",
                                           const OpenReadable& open = open_readable);

struct FileSetOptions {
  int64_t vocab_size = 0;  // V
  int64_t width = 0;       // bytes of an id where a file does not say: token_width()
  int32_t eos_id = 0;
  std::string index =
      {};  // folder of emo data index, whose documents are used where it has a file's
  std::string rows = {};  // as of open_prepared_set()
  OpenReadable open = open_readable;
};

// Errors of all files that cannot be read, a line each, NotFound where some are missing, else
// DataLoss; ResourceExhausted where too many files are open. REQUIRES: 0 <= eos_id < V.
absl::StatusOr<ShardSet> open_file_set(const std::vector<MixFile>& files,
                                       const FileSetOptions& options);

}  // namespace emo

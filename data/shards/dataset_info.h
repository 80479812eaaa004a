// Prepared text: a folder that `emo prepare` writes.
//
//   dataset.json         what is in it; written last, so a folder without it is not a data set
//   tokens-00000.npy     token ids, headerless, little-endian uint16 or uint32 (as OLMo's files),
//                        documents one after another, each with its end-of-document token
//   tokens-00000.index   one 24-byte DocumentRecord a document
//   tokens-00000.ids     one line a document: its id; may be left out, and removed
//   tokenizer.json       a copy of the tokenizer
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/tokenizer/tokenizer_identity.h"

namespace emo {

struct DatasetInfo {
  std::string dtype;  // "uint16" or "uint32"
  int64_t vocab_size = 0;
  int32_t eos_id = 0;
  TokenizerIdentity tokenizer;
  std::vector<std::string> sources;  // in order of first appearance
  struct Shard {
    std::string name;  // "tokens-00000"
    int64_t tokens = 0;
    int64_t documents = 0;
    std::string sha256;             // of the tokens' file
    std::string index_sha256 = {};  // of the index; "" where an older version wrote it
  };
  std::vector<Shard> shards;
};

// What dataset.json of a folder says; where version 0.1.0 wrote it, and it does not say what the
// tokenizer means, the folder's copy of that tokenizer does. NotFound without it, DataLoss where it
// cannot be read. Opens no shard.
absl::StatusOr<DatasetInfo> read_dataset_info(const std::string& folder);

// The same of its text, which stands in `where`; the tokenizer as it says.
absl::StatusOr<DatasetInfo> parse_dataset_info(const std::string& text, const std::string& where);

// The same as text.
std::string to_json(const DatasetInfo& info);

// Bytes of an id in the shards.
int64_t dtype_bytes(const DatasetInfo& info);

}  // namespace emo

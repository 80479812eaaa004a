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
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "data/files/file_system.h"
#include "data/shards/token_file.h"
#include "data/tokenizer/tokenizer_identity.h"

namespace emo {

// Little-endian, as in memory.
struct DocumentRecord {
  uint64_t end;      // tokens of the shard up to and including this document
  uint64_t bytes;    // of its UTF-8 text
  uint32_t source;   // index in DatasetInfo::sources
  uint32_t context;  // its first tokens that are given and not to be predicted: a task's question;
                     // 0 for text
};
static_assert(sizeof(DocumentRecord) == 24);

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
    std::string sha256;  // of the tokens' file
  };
  std::vector<Shard> shards;
};

// What dataset.json of a folder says; where version 0.1.0 wrote it, and it does not say what the
// tokenizer means, the folder's copy of that tokenizer does. NotFound without it, DataLoss where it
// cannot be read. Opens no shard.
absl::StatusOr<DatasetInfo> read_dataset_info(const std::string& folder);

// Appends documents in order; starts a new shard where the current one is full. Calls: append any
// number of times, then finish once. After an error nothing may follow: what was written is no data
// set, since dataset.json is missing. Not thread-safe. Errors as of FileSystem.
class ShardWriter {
 public:
  // `info` holds vocab_size, eos_id and tokenizer; the rest is filled in while writing.
  // REQUIRES: `fs` outlives the writer; `folder` exists and is empty; tokens_per_shard >= 1.
  // `with_ids`: whether files of ids are written.
  ShardWriter(FileSystem& fs, std::string folder, DatasetInfo info, int64_t tokens_per_shard,
              bool with_ids = true);
  ~ShardWriter();

  // `tokens` with the end-of-document token; `bytes` of the text without it; `context`: see
  // DocumentRecord. A document of more tokens than a shard has one for itself.
  // REQUIRES: `tokens` are not empty and below info.vocab_size; context < their number.
  absl::Status append(const std::vector<int32_t>& tokens, uint64_t bytes, const std::string& source,
                      const std::string& id, uint32_t context = 0);
  // Closes the last shard and writes dataset.json, all of it synced.
  absl::StatusOr<DatasetInfo> finish();

 private:
  struct Open;
  absl::Status open_shard();
  absl::Status close_shard();
  uint32_t source_index(const std::string& source);

  FileSystem& fs_;
  std::string folder_;
  DatasetInfo info_;
  int64_t tokens_per_shard_;
  bool with_ids_;
  std::unique_ptr<Open> open_;
};

// An opened folder. Movable; views stay valid while it lives. Thread-safe. A `shard` is one of
// [0, num_shards()) everywhere.
class TokenDataset {
 public:
  // Errors as of read_dataset_info(); NotFound without a shard's file, DataLoss where a file's size
  // contradicts dataset.json (truncated shard), an index does not ascend or names a source that is
  // not there. Tokens are checked when they are read.
  static absl::StatusOr<TokenDataset> open(const std::string& folder);

  const DatasetInfo& info() const { return info_; }
  const std::string& folder() const { return folder_; }
  int64_t num_shards() const { return static_cast<int64_t>(shards_.size()); }
  int64_t tokens(int64_t shard) const { return info_.shards[shard].tokens; }
  int64_t documents(int64_t shard) const { return info_.shards[shard].documents; }
  const DocumentRecord* index(int64_t shard) const;  // [documents(shard)]

  // Copies tokens [begin, begin + count) of a shard. DataLoss, naming file, document and offset,
  // for an id that is not below the vocabulary's size; else as ReadableFile::read().
  // REQUIRES: 0 <= begin, 0 <= count, begin + count <= tokens(shard); tokens has room for count.
  absl::Status read(int64_t shard, int64_t begin, int64_t count, int32_t* tokens) const;

  // The ids of a shard's documents, in order, read from the disk each time; where their file is
  // missing, shard and number: "tokens-00000:17". DataLoss where it has another number of them.
  absl::StatusOr<std::vector<std::string>> document_ids(int64_t shard) const;

 private:
  struct Shard {
    TokenFile tokens;
    MappedFile index;
  };
  std::string folder_;
  DatasetInfo info_;
  std::vector<Shard> shards_;
};

}  // namespace emo

// Writes a folder of prepared text (dataset_info.h).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/files/file_system.h"
#include "data/shards/dataset_info.h"

namespace emo {

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

}  // namespace emo

// Rows out of token files: a folder of emo prepare, or files as they lie.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "data/rows/chunk_source.h"
#include "data/rows/packed_rows.h"
#include "data/shards/shard_set.h"

namespace emo {

struct ChunkOptions {
  int64_t sequence_length = 0;  // S
  int64_t group = 1;            // chunks of a file are a multiple of this; see reference_group()
  DocumentPacking packing = DocumentPacking::kCut;
  std::string index = {};  // folder that keeps packed rows; "": they are packed anew, in memory
  OpenReadable open = open_readable;  // of files in that folder
};

class TokenChunks : public ChunkSource {
 public:
  // DataLoss where no file holds S tokens; FailedPrecondition where packing needs to know where
  // documents lie, and a file has no index; else as PackedRows::find_or_pack(), which runs here and
  // may wait for another process that packs the same.
  // REQUIRES: S >= 1; group is 1 where packing is not kCut.
  static absl::StatusOr<std::unique_ptr<TokenChunks>> create(ShardSet set,
                                                             const ChunkOptions& options);

  int64_t num_chunks() const override { return first_chunk_.back(); }
  // A span's `shard` is the number of its file, its document -1 where the file has no index.
  absl::Status read(int64_t chunk, int32_t* tokens, std::vector<int32_t>* document_ends,
                    std::vector<SpanSource>* sources) const override;
  const std::vector<std::string>& sources() const override { return set_.sources; }
  int64_t vocab_size() const override { return set_.vocab_size; }
  int32_t eos_id() const override { return set_.eos_id; }
  std::string fingerprint() const override { return set_.fingerprints.front(); }
  bool matches(const std::string& fingerprint) const override;
  const std::vector<DataFile>& files() const override { return set_.files; }

  // Where a chunk's S tokens lie, or the first of them that are not filling. REQUIRES: 0 <= chunk <
  // num_chunks(). Fails as PackedRows::row().
  struct Place {
    int64_t file, first_token;
  };
  absl::StatusOr<Place> place(int64_t chunk) const;
  const TokenFile& file(int64_t number) const { return set_.shards[number].tokens; }
  // [files + 1] The first chunk of each.
  const std::vector<int64_t>& first_chunks() const { return first_chunk_; }
  // What became of documents; nullopt where a file has no index. Of kCut it walks through all of
  // them, and fails as DocumentIndex::read().
  absl::StatusOr<std::optional<PackingCounts>> packing() const;

 private:
  TokenChunks(ShardSet set, ChunkOptions options)
      : set_(std::move(set)), options_(std::move(options)) {}
  absl::Status pack(size_t file);
  absl::Status read_cut(const TokenShard& shard, int64_t number, int64_t begin, int32_t* tokens,
                        std::vector<int32_t>* document_ends,
                        std::vector<SpanSource>* sources) const;
  absl::Status read_packed(int64_t number, int64_t row, int32_t* tokens,
                           std::vector<int32_t>* document_ends,
                           std::vector<SpanSource>* sources) const;
  absl::Status read_tokens(const TokenShard& shard, int64_t begin, int64_t count,
                           int32_t* tokens) const;

  const ShardSet set_;
  const ChunkOptions options_;
  std::vector<int64_t> first_chunk_ = {0};  // [files + 1]
  std::vector<PackedRows> packed_;          // [files] but for kCut
};

}  // namespace emo

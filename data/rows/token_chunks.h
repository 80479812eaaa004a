// Chunks of token files as they are: each file is cut into consecutive chunks of S tokens, never
// across files; what is left at its end is not used (the reference's concatenate-and-chunk).
// Documents end at end-of-document tokens.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/mix/mix.h"
#include "data/rows/chunk_source.h"
#include "data/shards/token_file.h"

namespace emo {

struct TokenChunksOptions {
  int64_t sequence_length = 0;  // S
  int64_t group = 1;            // chunks of a file are a multiple of this; see reference_group()
  int64_t vocab_size = 0;       // V
  int64_t width = 0;            // bytes of an id where a file does not say: token_width()
  int32_t eos_id = 0;
  OpenReadable open = open_readable;
};

class TokenChunks : public ChunkSource {
 public:
  // Errors of all files that cannot be read, a line each, NotFound where some are missing, else
  // DataLoss; also where no file holds S tokens. REQUIRES: files are not empty, 0 <= eos_id < V.
  static absl::StatusOr<std::unique_ptr<TokenChunks>> open(std::vector<MixFile> files,
                                                           TokenChunksOptions options);

  int64_t num_chunks() const override { return first_chunk_.back(); }
  // A span's `shard` is the number of its file; its document has none.
  absl::Status read(int64_t chunk, int32_t* tokens, std::vector<int32_t>* document_ends,
                    std::vector<SpanSource>* sources) const override;
  const std::vector<std::string>& sources() const override { return sources_; }
  int64_t vocab_size() const override { return options_.vocab_size; }
  int32_t eos_id() const override { return options_.eos_id; }
  // Of the files' labels, names and sizes, and of bytes at their beginning, middle and end.
  std::string fingerprint() const override { return fingerprint_; }

  // Where a chunk's S tokens lie. REQUIRES: 0 <= chunk < num_chunks().
  struct Place {
    int64_t file, first_token;
  };
  Place place(int64_t chunk) const;
  int64_t num_files() const { return static_cast<int64_t>(files_.size()); }
  const TokenFile& file(int64_t number) const { return files_[number]; }

 private:
  explicit TokenChunks(TokenChunksOptions options) : options_(std::move(options)) {}
  absl::Status add(const MixFile& file);
  absl::Status take_fingerprint(const std::vector<MixFile>& files);

  const TokenChunksOptions options_;
  std::vector<TokenFile> files_;
  std::vector<int32_t> source_of_;          // [files] in sources_
  std::vector<int64_t> first_chunk_ = {0};  // [files + 1]
  std::vector<std::string> sources_;        // labels, in order of first appearance
  std::string fingerprint_;
};

}  // namespace emo

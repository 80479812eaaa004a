// A file of token ids, read where it lies: numbers from the first byte on, as OLMo's `.npy` files
// are, or NumPy's own format, which its first bytes tell.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/files/readable_file.h"

namespace emo {

// The type of ids in files without a header.
enum class IdType { kByVocabulary, kUint8, kUint16, kUint32, kUint64 };
const std::vector<std::string>& id_type_names();  // in the enum's order

// Movable. Thread-safe.
class TokenFile {
 public:
  // `width`: bytes of an id where the file does not say; 1, 2, 4 or 8. DataLoss where the file
  // holds no whole number of ids, another number of them than its header says, or a header that is
  // not of token ids (npy_header.h); else as open_readable().
  static absl::StatusOr<TokenFile> open(const std::string& path, int64_t width,
                                        const OpenReadable& open = open_readable);
  // The same of a file that is known to have no header, whatever its first ids look like.
  static absl::StatusOr<TokenFile> open_headerless(const std::string& path, int64_t width,
                                                   const OpenReadable& open = open_readable);

  const std::string& path() const { return file_->path(); }
  int64_t tokens() const { return tokens_; }
  int64_t width() const { return width_; }
  bool has_header() const { return begin_ > 0; }
  int64_t bytes() const { return file_->size(); }

  // Copies tokens [begin, begin + count). DataLoss, naming file and place, for an id that is not
  // below `vocab_size`. `bytes` is scratch. REQUIRES: 0 <= begin, begin + count <= tokens().
  absl::Status read(int64_t begin, int64_t count, int64_t vocab_size, int32_t* tokens,
                    std::string* bytes) const;

 private:
  TokenFile() = default;
  std::unique_ptr<ReadableFile> file_;
  int64_t begin_ = 0;  // bytes before the first id
  int64_t width_ = 0;
  int64_t tokens_ = 0;
};

// The first of tokens [count], as TokenFile::read() leaves them whether it fails or not, that is
// not below the vocabulary; `count` where all are, or nothing could be read.
int64_t first_beyond(int64_t vocab_size, const int32_t* tokens, int64_t count);

// The bytes of an id where a file does not say. By the vocabulary: the fewest that hold any below
// `vocab_size`, as OLMo chooses them.
int64_t token_width(IdType type, int64_t vocab_size);

}  // namespace emo

// What emo data index knows of a token file: where its documents end, in a file of its own, in a
// folder of the user's, since the data may be read-only. It is found by what the token file holds
// (name, length, a sample of its ids), not by where that lies.
//
//   "emoends1", tokens, end-of-document token              8 bytes each
//   the documents' ends                                    8 bytes each, ascending
//   SHA-256 of the ids, and of the ends                    64 characters each
//
// That of the ids is of the SHA-256s of every 2^22 of them, as int32: many threads make it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "data/files/file_system.h"
#include "data/shards/data_file.h"
#include "data/shards/document_index.h"
#include "data/shards/token_file.h"

namespace emo {

// Where the folder of an index has a file's.
std::string path_of_ends(const std::string& folder, const DataFile& file, int32_t eos_id);

// An opened one. Movable.
struct EndFile {
  DocumentIndex documents;
  std::string ids_sha256;   // of the token file's
  std::string ends_sha256;  // of its own ends
  // DataLoss where it is not of `tokens` tokens, or was cut. Its ends are checked where they are
  // read.
  static absl::StatusOr<EndFile> open(const std::string& path, int64_t tokens,
                                      const OpenReadable& open = open_readable);
};

// A file's in the folder of an index; nullopt where it has none. Fails as EndFile::open().
absl::StatusOr<std::optional<EndFile>> find_ends(const std::string& folder, const DataFile& file,
                                                 int32_t eos_id,
                                                 const OpenReadable& open = open_readable);

// What a scan of a token file finds.
struct ScannedDocuments {
  int64_t documents = 0;
  std::string ids_sha256, ends_sha256;
};

// Reads all of a token file by `threads` threads, and calls `see` with the ends of documents, in
// order, after every few million tokens, and how many tokens that were. Tokens behind the last
// end-of-document token are a document too. DataLoss for ids that are not below `vocab_size`; else
// as TokenFile::read() and what `see` answers. REQUIRES: the file has tokens, threads >= 1.
using SeeEnds = std::function<absl::Status(absl::Span<const uint64_t> ends, int64_t tokens)>;
absl::StatusOr<ScannedDocuments> scan_documents(const TokenFile& file, int64_t vocab_size,
                                                int32_t eos_id, int threads, const SeeEnds& see);

// Scans a token file and writes `path`, under another name first, renamed when all is there; calls
// `see` with tokens as they are read. Fails as scan_documents() and FileSystem.
absl::StatusOr<ScannedDocuments> write_ends(FileSystem& fs, const TokenFile& file,
                                            int64_t vocab_size, int32_t eos_id, int threads,
                                            const std::string& path,
                                            const std::function<void(int64_t tokens)>& see);

}  // namespace emo

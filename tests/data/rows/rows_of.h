// Rows of data that a test has written.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "data/rows/token_chunks.h"

namespace emo {

inline absl::StatusOr<std::unique_ptr<TokenChunks>> rows_of_folder(
    const std::string& folder, int64_t S, DocumentPacking packing = DocumentPacking::kCut) {
  absl::StatusOr<ShardSet> set = open_prepared_set(folder, fingerprint_text(packing));
  if (!set.ok()) return set.status();
  return TokenChunks::create(*std::move(set), {S, 1, packing, ""});
}

inline absl::StatusOr<std::unique_ptr<TokenChunks>> rows_of_files(const std::vector<MixFile>& files,
                                                                  const FileSetOptions& how,
                                                                  const ChunkOptions& rows) {
  absl::StatusOr<ShardSet> set = open_file_set(files, how);
  if (!set.ok()) return set.status();
  return TokenChunks::create(*std::move(set), rows);
}

}  // namespace emo

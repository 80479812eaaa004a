// MANIFEST: the size and SHA-256 of every other file of a folder, written last; a folder without it
// is not complete.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/files/file_system.h"
#include "data/files/json.h"
#include "data/files/safetensors.h"

namespace emo {

constexpr char kManifest[] = "MANIFEST";

// {name, size, sha256}
OrderedJson file_json(const WrittenFile& file);

// Writes and syncs a small file.
absl::StatusOr<WrittenFile> write_text_file(FileSystem& fs, const std::string& folder,
                                            const std::string& name, const std::string& text);

// Writes MANIFEST and syncs the folder.
absl::Status write_manifest(FileSystem& fs, const std::string& folder,
                            const std::vector<WrittenFile>& files);

// NotFound without MANIFEST, DataLoss where it cannot be one.
absl::StatusOr<std::vector<WrittenFile>> read_manifest(const std::string& folder);

// DataLoss where a file's size or SHA-256 is not what MANIFEST says.
absl::Status verify_file(const std::string& folder, const WrittenFile& expected);

}  // namespace emo

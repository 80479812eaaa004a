// MANIFEST: size and SHA-256 of every other file of a model folder; written last.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/file_system.h"
#include "data/json.h"
#include "data/safetensors.h"

namespace emo {

constexpr char kManifest[] = "MANIFEST";

// Writes and syncs a small file.
absl::StatusOr<WrittenFile> write_text(FileSystem& fs, const std::string& folder,
                                       const std::string& name, const std::string& text);

OrderedJson to_json(const WrittenFile& file);  // {name, size, sha256}

// Writes and syncs the manifest, and syncs the folder.
absl::Status write_manifest(FileSystem& fs, const std::string& folder,
                            const std::vector<WrittenFile>& files);

// NotFound without one; DataLoss where it is damaged.
absl::StatusOr<std::vector<WrittenFile>> read_manifest(const std::string& folder);

}  // namespace emo

// Writing Hugging Face model folders tensor by tensor, whatever their size.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "data/file_system.h"
#include "data/json.h"
#include "train/model_files.h"

namespace emo {

struct ModelFolder {
  const TensorFolder* tensors;
  OrderedJson config;                                      // config.json
  std::vector<std::pair<std::string, std::string>> texts;  // name and contents of further files
  uint64_t max_shard_bytes = uint64_t{1} << 30;            // at most so much is in memory at a time
};

// Writes `folder` anew: config.json, the tensors in order of their names in
// model-0000i-of-0000n.safetensors with their index, the texts, MANIFEST. It is written under a
// temporary name and renamed. `written` is told the bytes of tensors written so far. AlreadyExists
// where the folder stands.
absl::Status write_model_folder(FileSystem& fs, const std::string& folder, const ModelFolder& model,
                                const std::function<void(uint64_t bytes)>& written);

// The small files that belong to a model and are no weights, where the folder has them:
// tokenizer, generation_config.json, the Python files for transformers.
absl::StatusOr<std::vector<std::pair<std::string, std::string>>> companion_files(
    const std::string& folder);

}  // namespace emo

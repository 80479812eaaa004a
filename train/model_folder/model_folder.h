// Writing Hugging Face model folders tensor by tensor, whatever their size.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "data/files/file_system.h"
#include "data/files/json.h"
#include "train/model_folder/tensor_copy.h"

namespace emo {

using TextFiles = std::vector<std::pair<std::string, std::string>>;  // name and contents

// A new model folder: what it is made of, in memory but for the tensors that files have.
struct ModelFolder {
  OrderedJson config;              // config.json
  TextFiles texts;                 // further files
  std::vector<TensorCopy> copies;  // the tensors, in the order of the files
  uint64_t max_shard_bytes = 5'000'000'000;
};

// Writes `folder` anew: the tensors (write_copies), the texts, config.json, MANIFEST, under a
// temporary name that is renamed, or removed where something fails, with a progress line under the
// name `work`. Answers all files but the MANIFEST. AlreadyExists where the folder stands.
absl::StatusOr<std::vector<WrittenFile>> write_model_folder(FileSystem& fs, const std::string& work,
                                                            const std::string& folder,
                                                            const ModelFolder& model);

// Those of these files that the folder has.
absl::StatusOr<TextFiles> text_files(const std::string& folder,
                                     const std::vector<std::string>& names);

// The small files that belong to a model and are no weights, where the folder has them:
// tokenizer, generation_config.json, the Python files for transformers.
absl::StatusOr<TextFiles> companion_files(const std::string& folder);

}  // namespace emo

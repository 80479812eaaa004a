// Copies a model's tensors from one folder into another, one at a time, so that memory stays small
// whatever the model's size: under other names, in another type, with other rows.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/files/safetensors.h"
#include "model/config.h"
#include "train/model_folder/model_files.h"

namespace emo {

struct TensorCopy {
  std::string name;   // in the new folder
  std::string dtype;  // there: the source's, or F32 or BF16
  // There; the first extent may differ from the source's: rows are left out at the end, or zero
  // rows added.
  std::vector<int64_t> shape;
  const TensorRecord* source;  // F32, BF16 or F16 where the types differ
};

using TensorNaming = std::function<std::string(const std::string&)>;

// Every parameter of the model, in order, as the folder has it: its type (F16 becomes F32) and
// shape. `naming` gives the folder's name for a parameter's. DataLoss that lists every tensor that
// is missing, has another shape or type, or is not part of the model.
absl::StatusOr<std::vector<TensorCopy>> match_tensors(const TensorFolder& folder,
                                                      const ModelConfig& config,
                                                      const TensorNaming& naming);

// Every tensor of the folder as it is, in order of names.
std::vector<TensorCopy> all_tensors(const TensorFolder& folder);

uint64_t bytes_of(const std::vector<TensorCopy>& copies);  // as they will be written

using BytesWritten = std::function<void(uint64_t bytes)>;  // of tensors, so far

// Writes model.safetensors, or, above `max_shard_bytes`, model-0000i-of-0000n.safetensors with the
// index, into `folder`; a tensor is never cut.
absl::StatusOr<std::vector<WrittenFile>> write_copies(FileSystem& fs, const std::string& folder,
                                                      const std::vector<TensorCopy>& copies,
                                                      uint64_t max_shard_bytes,
                                                      const BytesWritten& written);

}  // namespace emo

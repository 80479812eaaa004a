// Exchange of models with other programs: Hugging Face folders out and in.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/files/file_system.h"
#include "train/model_folder/architecture.h"
#include "train/model_folder/model_folder.h"

namespace emo {

struct ExportOptions {
  std::string dtype;       // "fp32", "bf16", or "" for what the folder has
  int64_t vocab_size = 0;  // rows of embedding and head; 0: what the folder has
  uint64_t max_shard_bytes = ModelFolder().max_shard_bytes;
  Architecture architecture = Architecture::kEmo;
  bool force = false;  // also what the reference's class computes differently
};

struct ConversionReport {
  ModelDescription description;  // of what was written
  int64_t tensors = 0;
  uint64_t bytes = 0;  // of all files written
  int64_t files = 0;
};

// Writes the model of folder `from` as the new folder `to`: config.json, generation_config.json,
// tensors, tokenizer files where there are any, our Python classes (architecture emo), MANIFEST.
// Written under a temporary name and renamed. Reads and writes one tensor at a time.
// AlreadyExists where `to` stands; InvalidArgument for what the architecture cannot hold, or,
// unless forced, computes differently; otherwise as import_model.
absl::StatusOr<ConversionReport> export_model(FileSystem& fs, const std::string& from,
                                              const std::string& to, const ExportOptions& options);

// Writes a folder that another program wrote (config.json, or golden.json with sizes; safetensors)
// as the checkpoint `to`, which `emo` evaluates and a run may start from. Tensors keep their type
// (F16 becomes F32). Without our routing contract it becomes `unstated`, with no pools. NotFound
// for missing files; DataLoss that lists every field that our code does not compute, every entry of
// the index that points outside the folder, and every tensor that is missing, extra or mis-shaped.
absl::StatusOr<ConversionReport> import_model(FileSystem& fs, const std::string& from,
                                              const std::string& to);

}  // namespace emo

// A run's data, as its config says: where rows come from, and in which order.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "data/rows/chunk_source.h"
#include "data/rows/loader.h"
#include "train/config/run_config.h"

namespace emo {

struct RunData {
  std::unique_ptr<ChunkSource> source;
  LoaderOptions loader;
  std::string tokenizer_path;  // to be copied into checkpoints; "": there is none
};

// Local. NotFound where files are missing, DataLoss where they cannot be read, or the data's
// vocabulary is larger than the model's; InvalidArgument where the config does not say what token
// files need.
absl::StatusOr<RunData> open_run_data(const RunConfig& config);

}  // namespace emo

// The files of a golden folder, read and checked.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/files/json.h"
#include "data/rows/batch.h"
#include "model/config.h"
#include "train/model_folder/hugging_face.h"
#include "train/model_folder/model_files.h"

namespace emo {

struct GoldenStep {
  double learning_rate = 0;
  Json expected;  // loss_total, ce_loss, grad_norm
  Batch batch;    // all rows
};

struct GoldenFolder {
  ModelConfig config;
  RoutingContract contract;
  int64_t sequence_length = 0;
  Json expected;  // golden.json
  Batch batch;    // all rows
  std::vector<GoldenStep> trajectory;
  TensorFolder weights, weights_after, gradients, forward;
};

// DataLoss or NotFound naming file and field for whatever is missing or does not fit.
absl::StatusOr<GoldenFolder> read_golden(const std::string& folder);

// The model that golden.json speaks of, as far as its sizes say; its contract is not stated.
absl::StatusOr<ModelDescription> read_golden_sizes(const std::string& folder);

// The rows that `rank` of `world` ranks takes; none where there are too few.
Batch rows_of(const Batch& all, int64_t rank, int64_t world);

}  // namespace emo

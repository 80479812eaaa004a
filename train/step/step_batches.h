// What a training step needs from the config and the data: options, and this rank's rows, loaded
// and turned into tensors.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "model/micro_batch.h"
#include "parallel/mesh.h"
#include "train/config/run_config.h"
#include "train/run_data.h"
#include "train/step/training_step.h"

namespace emo {

struct StepBatches {
  std::vector<MicroBatch> micro_batches;
  int64_t divisor_share = 0;            // of the step's N, summed over micro-batches
  int64_t filtered = 0;                 // rows that the instance filter took the labels of
  std::vector<int32_t> attention_ends;  // of the first slice, to count FLOPs
};

// Sequences [first_sequence, first_sequence + train.batch) of the order, each micro-batch dealt to
// ranks as evenly as it goes. Not collective: ranks can fail alone.
absl::StatusOr<StepBatches> load_step(const RunData& data, const RunConfig& config,
                                      const Mesh& mesh, int64_t first_sequence);

// What the config says about every step; the learning rate is the schedule's.
StepOptions step_options_of(const RunConfig& config);
StateOptions state_options_of(const RunConfig& config, ExpertOrder order);

}  // namespace emo

// One optimizer step's rows of this rank, loaded and turned into tensors.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "data/chunk_source.h"
#include "model/micro_batch.h"
#include "parallel/mesh.h"
#include "train/run_config.h"

namespace emo {

struct StepBatches {
  std::vector<MicroBatch> micro_batches;
  int64_t divisor_share = 0;            // of the step's N, summed over micro-batches
  std::vector<int32_t> attention_ends;  // of the first micro-batch, to count FLOPs
};

// Sequences [first_sequence, first_sequence + train.batch) of the order, each micro-batch dealt to
// ranks as evenly as it goes. Not collective: ranks can fail alone.
absl::StatusOr<StepBatches> load_step(const ChunkSource& source, const RunConfig& config,
                                      const Mesh& mesh, int64_t first_sequence);

}  // namespace emo

#include "train/step/step_batches.h"

#include <algorithm>

#include "data/rows/loader.h"
#include "train/step/batch_tensors.h"

namespace emo {

absl::StatusOr<StepBatches> load_step(const RunData& data, const RunConfig& config,
                                      const Mesh& mesh, int64_t first_sequence) {
  const int64_t size = config.train.batch / config.train.micro_batches;
  StepBatches step;
  for (int64_t m = 0; m < config.train.micro_batches; ++m) {
    const SequenceRange all{first_sequence + m * size, first_sequence + (m + 1) * size};
    const auto deal = config.data.order == Order::kReference ? column_of : share_of;
    const SequenceRange mine = deal(all, mesh.world->rank(), mesh.world->size());
    MicroBatch& slices = step.micro_batches.emplace_back();
    for (int64_t s = 0; s < config.parallel.slices; ++s) {
      absl::StatusOr<Batch> batch =
          load(*data.source, data.loader, share_of(mine, s, config.parallel.slices));
      if (!batch.ok()) return batch.status();
      step.divisor_share += divisor_share(*batch);
      step.filtered += std::count(batch->filtered.begin(), batch->filtered.end(), 1);
      if (m == 0 && s == 0) step.attention_ends = batch->attention_ends;
      slices.push_back(to_tensors(*batch));
    }
  }
  return step;
}

StateOptions state_options_of(const RunConfig& config, ExpertOrder order) {
  return {std::move(order),
          config.parallel.zero == 2 ? GradientMemory::kParts : GradientMemory::kWhole,
          config.train.freeze};
}

StepOptions step_options_of(const RunConfig& config) {
  StepOptions options;
  options.lm_z_weight = config.train.lm_z_weight;
  options.clip = config.train.clip;
  options.adamw = config.optimizer;
  options.pass.seed = config.run.seed;
  // Slices are there to save memory: they keep what stands between blocks and nothing else.
  options.pass.recompute =
      config.parallel.slices > 1 ? Recompute::kBlock : config.parallel.recompute;
  options.pass.precision = config.parallel.precision;
  return options;
}

}  // namespace emo

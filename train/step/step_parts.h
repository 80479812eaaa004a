// One optimizer step, part by part: what all devices do alike, in the order in which they do it.
#pragma once

#include <cstdint>
#include <vector>

#include "model/losses.h"
#include "model/micro_batch.h"
#include "model/pass.h"
#include "parallel/communicator.h"
#include "parallel/expert_exchange.h"
#include "train/optimizer/optimizer.h"

namespace emo {

struct StepOptions {
  double learning_rate = 0;
  double lm_z_weight = 1e-5;
  double clip = 1.0;  // 0: off
  AdamWOptions adamw;
  PassSettings pass;
  bool want_exchange = false;  // StepResult::exchange, where experts are spread over ranks
  Profile* profile = nullptr;
};

struct StepResult {
  LossSums sums;                                        // of all ranks and micro-batches
  double divisor = 0;                                   // N
  double gradient_norm = 0;                             // before clipping
  std::vector<std::vector<ExchangeCounters>> exchange;  // by rank and layer, where wanted
  double cross_entropy() const { return sums.cross_entropy / divisor; }
  double z_loss(double weight) const { return weight * sums.z_squares / divisor; }
  bool finite() const;
};

// The parts of one step on one device, to be called once each in this order, accumulate() for each
// micro-batch; clip() and update() may be left out together, by who wants the gradients alone.
// accumulate(), reduce() and update() are collective.
class StepParts {
 public:
  virtual ~StepParts() = default;
  // `divisor`: N of the step, over all ranks.
  virtual void begin(double divisor) = 0;
  // Adds the losses and gradients of micro-batch m.
  virtual void accumulate(size_t m) = 0;
  // Sums over ranks: each has its own part of all gradients, and all have the losses and the norm.
  virtual void reduce() = 0;
  // Works out by what gradients are scaled.
  virtual void clip() = 0;
  // Changes the parameters, which then travel; not where the result is not finite, on any rank.
  virtual void update() = 0;
  virtual StepResult result() = 0;
};

// Backward passes of a step: one for each slice.
int64_t passes_of(const std::vector<MicroBatch>& micro_batches);

// Collective over `world`. The gradients of a step of so many micro-batches; `divisor_share` is
// this rank's part of N (batch_tensors.h), over all of them.
void compute_gradients(Communicator& world, size_t micro_batches, int64_t divisor_share,
                       StepParts* step);

// Collective over `world`. The whole step.
StepResult take_step(Communicator& world, size_t micro_batches, int64_t divisor_share,
                     StepParts* step);

}  // namespace emo

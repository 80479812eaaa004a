#include "eval/tasks/sequence_scores.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>

namespace emo {
std::vector<double> log_likelihoods(Inference* inference, const std::vector<Sequence>& sequences,
                                    const EvalOptions& options,
                                    const std::function<void(int64_t done)>& progress) {
  Communicator& world = *inference->mesh().world;
  std::vector<int64_t> lengths;
  for (const Sequence& sequence : sequences) {
    lengths.push_back(static_cast<int64_t>(sequence.tokens.size()));
  }
  int64_t batches = 0;
  const std::vector<int64_t> batch_of =
      deal_lengths(lengths, options.tokens_per_batch, world.size(), &batches);
  std::vector<double> result(sequences.size(), 0.0);
  for (int64_t first = 0; first < batches; first += world.size()) {
    const auto [begin, end] =
        std::equal_range(batch_of.begin(), batch_of.end(), first + world.rank());
    const int64_t from = begin - batch_of.begin();
    const std::vector<Sequence> mine(sequences.begin() + from,
                                     sequences.begin() + (end - batch_of.begin()));
    const Slice batch = sequence_batch(mine);
    const float* loss = inference->token_losses(batch, {options.pass}).data();
    for (size_t i = 0; i < mine.size(); ++i) {
      for (int64_t t = 0; t < lengths[from + i]; ++t) result[from + i] -= *loss++;
    }
    if (progress) progress(end - batch_of.begin());
  }
  if (!result.empty()) {
    world.all_reduce(
        at::from_blob(result.data(), {static_cast<int64_t>(result.size())}, at::kDouble),
        ReduceOp::kSum);
  }
  return result;
}

}  // namespace emo

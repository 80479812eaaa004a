#include "eval/tasks/sequence_scores.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>

namespace emo {
namespace {

// The rows of x [T, D] that have a label, and their labels: the head is for them alone.
struct LabelledRows {
  std::vector<float> x;
  std::vector<int32_t> labels;
};
LabelledRows labelled_rows(const Slice& batch, const at::Tensor& x) {
  LabelledRows rows;
  const int64_t D = x.size(1);
  const auto* labels = batch.labels.const_data_ptr<int32_t>();
  const auto* from = x.const_data_ptr<float>();
  for (int64_t t = 0; t < batch.num_tokens(); ++t) {
    if (labels[t] < 0) continue;
    rows.labels.push_back(labels[t]);
    rows.x.insert(rows.x.end(), from + t * D, from + (t + 1) * D);
  }
  return rows;
}

}  // namespace

std::vector<double> log_likelihoods(const Model& model, const Mesh& mesh,
                                    const std::vector<Sequence>& sequences,
                                    const EvalOptions& options, PassMemory* memory,
                                    const std::function<void(int64_t done)>& progress) {
  const PassOptions pass = evaluation_pass(mesh, options.pass);
  memory->slices.resize(1);
  std::vector<int64_t> lengths;
  for (const Sequence& sequence : sequences) {
    lengths.push_back(static_cast<int64_t>(sequence.tokens.size()));
  }
  int64_t batches = 0;
  const std::vector<int64_t> batch_of =
      deal_lengths(lengths, options.tokens_per_batch, mesh.world->size(), &batches);
  std::vector<double> result(sequences.size(), 0.0);
  std::vector<float> token_loss;
  for (int64_t first = 0; first < batches; first += mesh.world->size()) {
    const auto [begin, end] =
        std::equal_range(batch_of.begin(), batch_of.end(), first + mesh.world->rank());
    const int64_t from = begin - batch_of.begin();
    const std::vector<Sequence> mine(sequences.begin() + from,
                                     sequences.begin() + (end - batch_of.begin()));
    const Slice batch = sequence_batch(mine);
    forward(model, batch, pass, &memory->slices[0], &memory->buffers);
    const LabelledRows rows = labelled_rows(batch, memory->slices[0].normalised);
    token_loss.resize(rows.labels.size());
    lm_loss(model.weights.head, static_cast<int64_t>(rows.labels.size()), rows.x.data(),
            rows.labels.data(), nullptr, token_loss.data(),
            &memory->buffers.block.feed_forward.scratch);
    const float* loss = token_loss.data();
    for (size_t i = 0; i < mine.size(); ++i) {
      for (auto t = mine[i].context; t < lengths[from + i]; ++t) result[from + i] -= *loss++;
    }
    if (progress) progress(end - batch_of.begin());
  }
  if (!result.empty()) {
    mesh.world->all_reduce(
        at::from_blob(result.data(), {static_cast<int64_t>(result.size())}, at::kDouble),
        ReduceOp::kSum);
  }
  return result;
}

}  // namespace emo

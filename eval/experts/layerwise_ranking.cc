#include "eval/experts/layerwise_ranking.h"

#include <ATen/ops/from_blob.h>

#include "eval/loss/document_batches.h"
#include "model/host/document_pools.h"
#include "train/subset/expert_subset.h"

namespace emo {
namespace {

// A batch on its way through the layers.
struct BatchInLayers {
  Slice batch;
  at::Tensor x;  // [T, D]
};

// Adds to sums [E] the softmax over all experts of each token.
void add_probability(const Slice& batch, const at::Tensor& logits, std::vector<double>* sums) {
  const auto E = static_cast<int64_t>(sums->size());
  const int64_t N = batch.routing_ends.numel() - 1;
  const auto* ends = batch.routing_ends.const_data_ptr<int32_t>();
  const std::vector<float> usable(E, 1);
  const DocumentScores scores = score_documents(pieces_of(ends, N), ends, N, E,
                                                logits.const_data_ptr<float>(), usable.data());
  for (int64_t i = 0; i < N * E; ++i) (*sums)[i % E] += scores.q[i];
}

}  // namespace

absl::StatusOr<LayerwiseRanking> rank_layerwise(Inference* inference, const TokenDataset& data,
                                                const std::vector<int64_t>& documents,
                                                int64_t sequence_length,
                                                const std::vector<int64_t>& keep) {
  const ModelConfig& config = inference->config();
  Communicator& world = *inference->mesh().world;
  const std::vector<DocumentPiece> pieces = cut_documents(data, documents, sequence_length);
  constexpr int64_t kTokensPerBatch = 8192;
  double tokens = 0;
  for (const DocumentPiece& piece : pieces) tokens += static_cast<double>(piece.length());
  std::vector<BatchInLayers> batches;
  absl::Status status = for_each_batch(data, deal_batches(pieces, kTokensPerBatch, world.size()),
                                       world, [&](const PieceBatch&, const Slice& batch) {
                                         batches.push_back({batch, inference->embed(batch)});
                                       });
  if (!status.ok()) return status;

  LayerwiseRanking ranking{zeros_like_experts(config), {}};
  ranking.kept.resize(config.n_layers);
  InferenceOptions pass;
  pass.settings.pool = PoolPolicy::none();
  pass.settings.subsets.resize(config.n_layers);
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    if (!config.is_dense(layer)) {
      std::vector<double>& scores = ranking.scores[layer];
      pass.settings.routed_off = true;  // the router's answer is all that is looked at
      for (const BatchInLayers& in : batches) {
        pass.after_block = [&](const BlockView& block) {
          add_probability(in.batch, block.router_logits, &scores);
        };
        inference->run_block(in.batch, pass, layer, in.x);
      }
      pass.after_block = nullptr;
      pass.settings.routed_off = false;
      world.all_reduce(
          at::from_blob(scores.data(), {static_cast<int64_t>(scores.size())}, at::kDouble),
          ReduceOp::kSum);
      for (double& score : scores) score /= tokens;
      ranking.kept[layer] = keep_largest(config, layer, scores, keep[layer]);
      pass.settings.subsets[layer] =
          to_subset(config, layer, ranking.kept[layer], /*full_weights=*/false);
    }
    if (layer + 1 == config.n_layers) break;
    for (BatchInLayers& in : batches) {
      in.x = inference->run_block(in.batch, pass, layer, in.x);
    }
  }
  return ranking;
}

}  // namespace emo

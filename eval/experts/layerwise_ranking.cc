#include "eval/experts/layerwise_ranking.h"

#include <ATen/ops/from_blob.h>

#include "eval/loss/perplexity.h"
#include "model/host/document_pools.h"
#include "parallel/buffers.h"
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

absl::StatusOr<LayerwiseRanking> rank_layerwise(const Model& model, const Mesh& mesh,
                                                const TokenDataset& data,
                                                const std::vector<int64_t>& documents,
                                                int64_t sequence_length,
                                                const std::vector<int64_t>& keep,
                                                PassMemory* memory) {
  const ModelConfig& config = model.config;
  const std::vector<DocumentPiece> pieces = cut_documents(data, documents, sequence_length);
  constexpr int64_t kTokensPerBatch = 8192;
  double tokens = 0;
  for (const DocumentPiece& piece : pieces) tokens += static_cast<double>(piece.length());
  std::vector<BatchInLayers> batches;
  absl::Status status =
      for_each_batch(data, deal_batches(pieces, kTokensPerBatch, mesh.world->size()), *mesh.world,
                     [&](const PieceBatch&, const Slice& batch) {
                       at::Tensor x;
                       shape_buffer(&x, {batch.num_tokens(), config.d_model});
                       forward_embedding(model, batch, &x);
                       batches.push_back({batch, x});
                     });
  if (!status.ok()) return status;

  LayerwiseRanking ranking{zeros_like_experts(config), {}};
  ranking.kept.resize(config.n_layers);
  PassSettings settings;
  settings.pool = PoolPolicy::none();
  settings.subsets.resize(config.n_layers);
  PassOptions pass = evaluation_pass(mesh, settings);
  BlockActivations* kept = &memory->buffers.recomputed;
  at::Tensor y;
  const auto run = [&](int64_t layer, const BatchInLayers& in) {
    shape_buffer(&y, {in.batch.num_tokens(), config.d_model});
    forward_block(model, in.batch, pass, layer, in.x, kept, &memory->buffers, &y);
  };
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    if (!config.is_dense(layer)) {
      std::vector<double>& scores = ranking.scores[layer];
      pass.settings.routed_off = true;  // the router's answer is all that is looked at
      for (const BatchInLayers& in : batches) {
        run(layer, in);
        add_probability(in.batch, kept->moe.logits, &scores);
      }
      pass.settings.routed_off = false;
      mesh.world->all_reduce(
          at::from_blob(scores.data(), {static_cast<int64_t>(scores.size())}, at::kDouble),
          ReduceOp::kSum);
      for (double& score : scores) score /= tokens;
      ranking.kept[layer] = keep_largest(config, layer, scores, keep[layer]);
      pass.settings.subsets[layer] =
          to_subset(config, layer, ranking.kept[layer], /*full_weights=*/false);
    }
    if (layer + 1 == config.n_layers) break;
    for (BatchInLayers& in : batches) {
      run(layer, in);
      copy_buffer(y, in.x);
    }
  }
  return ranking;
}

}  // namespace emo

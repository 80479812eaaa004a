// The one door of evaluation into a model: forward passes without a backward pass to come. Logits,
// losses of tokens, decoding, and a look at what stands inside after each block.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "model/host/key_value_cache.h"
#include "model/micro_batch.h"
#include "model/pass.h"
#include "model/transformer.h"
#include "parallel/mesh.h"

namespace emo {

// What a block has computed; overwritten by the next one. T tokens in N routing spans.
struct BlockView {
  int64_t layer;
  const at::Tensor& h;                   // [T, D] residual stream before the feed-forward part
  const at::Tensor& feed_forward_input;  // [T, D] normalised h
  const at::Tensor& y;                   // [T, D] output
  const MoeActivations* moe;             // null in a dense layer
};

// What is asked of a pass.
struct InferenceOptions {
  PassSettings settings;            // in fp32; recomputation means nothing here
  bool want_contributions = false;  // fill MoeActivations::contributions
  KeyValueCache* cache = nullptr;   // decoding: what came before the slice's spans, and grows
  std::function<void(const BlockView&)> after_block = {};  // may be empty
};

// Its passes are collective over the mesh's ep group: where one rank has no rows, it passes a slice
// without. REQUIRES of a slice: tokens of the vocabulary; of
// subsets, as many as there are layers, or none.
class Inference {
 public:
  // Both must outlive it; the model's table of positions grows as slices need it. `shared`: memory
  // of a training that stands still, to use instead of its own; null: its own.
  Inference(Model* model, const Mesh& mesh, PassBuffers* shared = nullptr);
  Inference(const Inference&) = delete;
  Inference& operator=(const Inference&) = delete;

  const Model& model() const { return *model_; }
  const ModelConfig& config() const { return model_->config; }
  const Mesh& mesh() const { return mesh_; }

  // A pass for what `after_block` sees.
  void run(const Slice& slice, const InferenceOptions& options);
  // Cross-entropy of each token in nats [T], 0 where it has no label.
  const std::vector<float>& token_losses(const Slice& slice, const InferenceOptions& options);
  // Logits f32 [rows, V] of chosen tokens, ascending numbers below T.
  at::Tensor logits(const Slice& slice, const InferenceOptions& options,
                    const std::vector<int64_t>& rows);

  // For those who take many batches through one layer after another: the first layer's input
  // [T, D], and one layer from x to y [T, D], which must be another tensor. Local; collective.
  at::Tensor embed(const Slice& slice);
  void run_block(const Slice& slice, const InferenceOptions& options, int64_t layer,
                 const at::Tensor& x, at::Tensor* y);

 private:
  void embed_into(const Slice& slice, at::Tensor* x);
  PassOptions pass_of(const InferenceOptions& options) const;
  // Of the last block's output x_: these rows, [rows, D]; and what the head sees of such.
  const at::Tensor& last_of(const std::vector<int64_t>& rows);
  const at::Tensor& final_norm(const at::Tensor& x);

  Model* model_;
  const Mesh& mesh_;
  PassBuffers own_;
  PassBuffers* buffers_;
  at::Tensor x_, y_;         // [T, D] input and output of a block, in turn
  at::Tensor rows_;          // [rows, D] of the last output, those that the head is wanted for
  at::Tensor normalised_;    // the same, as the head sees them
  at::Tensor reciprocal_;    // [rows] of the final norm
  std::vector<float> loss_;  // [T]
};

}  // namespace emo

// The one door of evaluation into a model: forward passes without a backward pass to come. Logits,
// losses of tokens, decoding, and a look at what stands inside after each block, wherever the model
// computes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "model/key_value_cache.h"
#include "model/micro_batch.h"
#include "model/pass.h"
#include "model/transformer.h"
#include "parallel/mesh.h"

namespace emo {

// What a block has computed, in host memory; overwritten by the next one. T tokens in N routing
// spans, E routed experts of which each token chose K.
struct BlockView {
  int64_t layer = 0;
  // In a MoE layer, else undefined:
  at::Tensor router_logits;  // f32 [T, E]
  at::Tensor experts;        // i32 [T, K], see Routing
  at::Tensor weights;        // f32 [T, K]
  at::Tensor pools;          // u8 [N, E]
  at::Tensor contributions;  // f32 [T, K], see MoeActivations; with want_states
  // With want_states, f32 [T, D]:
  at::Tensor h;                   // residual stream before the feed-forward part
  at::Tensor feed_forward_input;  // normalised h
  at::Tensor y;                   // output
};

// What is asked of a pass.
struct InferenceOptions {
  PassSettings settings;     // of recomputation and precision nothing counts here
  bool want_states = false;  // the fields of BlockView that say so
  KeyValueCache* cache =
      nullptr;  // decoding, of make_cache(): what came before the slice's spans, and grows
  std::function<void(const BlockView&)> after_block = {};  // may be empty
};

// Its passes are collective over the mesh's ep group: where one rank has no rows, it passes a slice
// without. REQUIRES of a slice: tokens of the vocabulary; of subsets, as many as there are layers,
// or none.
class Inference {
 public:
  // On the host it computes in fp32, on a device in the type of the model's parameters. Model and
  // mesh, whose communicators serve the model's tensors, must outlive it; the model's table of
  // positions grows as slices need it. `shared`: memory of a training that stands still, to use
  // instead of its own; null: its own.
  Inference(Model* model, const Mesh& mesh, PassBuffers* shared = nullptr);
  Inference(const Inference&) = delete;
  Inference& operator=(const Inference&) = delete;

  const ModelConfig& config() const { return model_.config; }
  const RoutingContract& contract() const { return model_.contract; }
  const Mesh& mesh() const { return mesh_; }
  // Of a layer's router, f32 [E] in host memory; undefined where there is none.
  at::Tensor selection_bias(int64_t layer) const;
  // For decoding: room for so many sequences of so many tokens, where the model computes.
  KeyValueCache make_cache(int64_t sequences, int64_t tokens) const;

  // A pass for what `after_block` sees.
  void run(const Slice& slice, const InferenceOptions& options);
  // Cross-entropy of each token in nats [T], 0 where it has no label. Stands until the next call.
  const std::vector<float>& token_losses(const Slice& slice, const InferenceOptions& options);
  // Logits f32 [rows, V], in host memory, of chosen tokens, ascending numbers below T.
  at::Tensor logits(const Slice& slice, const InferenceOptions& options,
                    const std::vector<int64_t>& rows);

  // For those who take many batches through one layer after another: the first layer's input
  // [T, D], local; and one layer's output [T, D] from its input, where the model computes.
  at::Tensor embed(const Slice& slice);
  at::Tensor run_block(const Slice& slice, const InferenceOptions& options, int64_t layer,
                       const at::Tensor& x);

 private:
  // Makes the table of positions long enough first.
  PlacedSlice place(const Slice& slice, const InferenceOptions& options);
  void run_layer(const PlacedSlice& slice, const InferenceOptions& options, const PassOptions& pass,
                 int64_t layer, const at::Tensor& x, at::Tensor* y);
  void show(const InferenceOptions& options, int64_t layer, const at::Tensor& y) const;
  // Of the last block's output x_: these rows as the head sees them, Stored [rows, D].
  const at::Tensor& head_input(const std::vector<int64_t>& rows);

  Model& model_;
  const Mesh& mesh_;
  PassBuffers own_;
  PassBuffers& buffers_;
  at::Tensor x_, y_;         // Residual [T, D] input and output of a block, in turn
  at::Tensor rows_;          // Residual [rows, D] of the last output, those the head is wanted for
  Normalised normalised_;    // the same, as the head sees them
  std::vector<float> loss_;  // [T]
};

}  // namespace emo

// The one door of evaluation into a model: forward passes without a backward pass to come. Logits,
// losses of tokens, decoding, and a look at what stands inside after each block. On the CPU
// (make_inference) or on a device (model/device/inference.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "model/host/key_value_cache.h"
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
  at::Tensor router_logits;                     // f32 [T, E]
  at::Tensor experts;                           // i32 [T, K], see Routing
  at::Tensor weights;                           // f32 [T, K]
  const std::vector<uint8_t>* pools = nullptr;  // [N, E]
  at::Tensor contributions;                     // f32 [T, K], see MoeActivations; with want_states
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
  virtual ~Inference() = default;
  virtual const ModelConfig& config() const = 0;
  virtual const RoutingContract& contract() const = 0;
  virtual const Mesh& mesh() const = 0;
  // For decoding: room for so many sequences of so many tokens, where the model computes.
  virtual KeyValueCache make_cache(int64_t sequences, int64_t tokens) const = 0;

  // A pass for what `after_block` sees.
  virtual void run(const Slice& slice, const InferenceOptions& options) = 0;
  // Cross-entropy of each token in nats [T], 0 where it has no label. Stands until the next call.
  virtual const std::vector<float>& token_losses(const Slice& slice,
                                                 const InferenceOptions& options) = 0;
  // Logits f32 [rows, V], in host memory, of chosen tokens, ascending numbers below T.
  virtual at::Tensor logits(const Slice& slice, const InferenceOptions& options,
                            const std::vector<int64_t>& rows) = 0;

  // For those who take many batches through one layer after another: the first layer's input
  // [T, D], local; and one layer's output [T, D] from its input, where the model computes.
  virtual at::Tensor embed(const Slice& slice) = 0;
  virtual at::Tensor run_block(const Slice& slice, const InferenceOptions& options, int64_t layer,
                               const at::Tensor& x) = 0;
};

// On the CPU, in fp32. Model and mesh must outlive it; the model's table of positions grows as
// slices need it. `shared`: memory of a training that stands still, to use instead of its own;
// null: its own.
std::unique_ptr<Inference> make_inference(Model* model, const Mesh& mesh,
                                          PassBuffers* shared = nullptr);

// What a pass of an inference is told, whatever computes it. Fails where there are subsets, but not
// one for each layer.
PassOptions pass_of(const InferenceOptions& options, const ModelConfig& config, const Mesh& mesh);

// The tokens of a slice that have a label, ascending, and those labels: who wants losses computes
// the head for them alone.
struct LabelledTokens {
  std::vector<int64_t> rows;
  std::vector<int32_t> labels;
};
LabelledTokens labelled_tokens(const Slice& slice);

}  // namespace emo

// The whole model: embedding, blocks, final norm, head; a forward pass to evaluate, and the forward
// and backward pass of a training micro-batch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "model/block.h"
#include "model/config.h"
#include "model/losses.h"
#include "model/micro_batch.h"
#include "model/parameters.h"

namespace emo {

// A model on this rank: what it is, and its parameters. Not copied; views point into the buffers.
struct Model {
  ModelConfig config;
  RoutingContract contract;
  ParameterLayout layout;
  FlatBuffers parameters;
  ModelWeights weights;  // views of `parameters`

  // Allocates; parameters are zero until initialise() or a checkpoint fills them.
  Model(const ModelConfig& config, const RoutingContract& contract,
        const GridPosition& position = {}, const ExpertOrder& order = {});
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
};

// What a rank keeps of the gradients of parameters that several ranks hold.
enum class GradientMemory {
  kWhole,  // all of them
  kParts,  // memory for a few buckets at a time, for as long as they take to be summed over ranks
};

// Gradients of a model.
struct Gradients {
  ParameterLayout layout;  // the model's; with kParts buckets follow one another in the same memory
  FlatBuffers buffers;     //
  ModelWeights views;      // into `buffers`
  explicit Gradients(const Model& model, GradientMemory memory = GradientMemory::kWhole);
  Gradients(const Gradients&) = delete;
  Gradients& operator=(const Gradients&) = delete;
};

// What a forward pass keeps for its backward pass; the memory stays from pass to pass.
struct Activations {
  std::vector<BlockActivations> blocks;  // [L]; with Recompute::kBlock only x and moe.routing
  at::Tensor last;                       // [T, D] output of the last block
  at::Tensor normalised;                 // [T, D] input of the head, of the pass's precision
  at::Tensor reciprocal;                 // [T] of the final norm
};

// Memory that all passes share, one after another.
struct PassBuffers {
  BlockActivations recomputed;  // of one block at a time, with Recompute::kBlock
  at::Tensor ignored;           // [T, D] the output of a block that is computed again
  at::Tensor d;                 // [T, D] gradient of the residual stream
  at::Tensor d_normalised;      // [T, D]
  BlockBuffers block;
  std::vector<ExchangeCounters> traffic;  // [L] counted up from pass to pass
};

// The memory of a training pass: activations of every slice, and one set of buffers.
struct PassMemory {
  std::vector<Activations> slices;
  PassBuffers buffers;
};

// What a pass needs beside the model and the batch.
struct PassOptions {
  Communicator* ep = nullptr;  // this rank's expert group
  uint64_t seed = 0;           // of pool sizes: run.seed
  ExchangeMode mode = ExchangeMode::kOncePerRank;
  PoolPolicy pool;                    // the contract's, or what an evaluation says
  bool routed_off = false;            // see MoeContext
  std::vector<ExpertSubset> subsets;  // [L], or empty: all experts
  bool want_contributions = false;    // see MoeActivations::contributions
  KeyValueCache* cache = nullptr;     // decoding: what came before the batch's spans, and grows
  Recompute recompute = Recompute::kNone;
  Precision precision = Precision::kFp32;  // of what is stored between products
  Profile* profile = nullptr;
  // Called before a bucket of parameters (parameters.h) is first read by a forward pass, and before
  // the first and after the last addition to a bucket of gradients by a backward pass; for each
  // slice of a micro-batch anew. May be empty.
  std::function<void(size_t bucket)> before_parameters, after_gradients;
  // Answers whether the bucket's gradients of routed experts hold sums that are to be added to; if
  // not, the pass writes over them. All other gradients are added to: it makes them ready for that.
  // Empty: all are added to.
  std::function<bool(size_t bucket)> before_gradients;
  // Called after each block of forward(), with what the block keeps and its output y [T, D]. May be
  // empty.
  std::function<void(int64_t layer, const BlockActivations& block, const at::Tensor& y)>
      after_block;
};

// The first step of forward(): the rows of the embedding, to x [T, D].
void forward_embedding(const Model& model, const MicroBatch& batch, const at::Tensor& x);

// Collective over ep. One block of forward(), from x [T, D] to y [T, D]; for those who go through a
// model layer by layer.
void forward_block(const Model& model, const RopeTable& rope, const MicroBatch& batch,
                   const PassOptions& options, int64_t layer, const at::Tensor& x,
                   const at::Tensor& y, BlockActivations* kept, PassBuffers* buffers);

// Collective over ep. Fills `activations` up to `normalised`.
void forward(const Model& model, const RopeTable& rope, const MicroBatch& batch,
             const PassOptions& options, Activations* activations, PassBuffers* buffers);

// Divisor and weights of a training micro-batch's losses.
struct LossOptions {
  double divisor = 1;         // N
  double lm_z_weight = 1e-5;  //
};

// Collective over ep, and over `world` for the balance counts. Adds a micro-batch's gradients to
// `gradients` (but see before_gradients) and its losses to `sums`. The micro-batch comes in slices,
// as many on every rank: all forward passes first, then one all-reduce of the counts of expert
// choices, then the backward passes, so that the balance loss sees the whole micro-batch. Gradients
// of one slice and of many differ by the order of their sums alone.
void forward_backward(const Model& model, const RopeTable& rope,
                      const std::vector<MicroBatch>& slices, const PassOptions& options,
                      const LossOptions& loss, Communicator& world, BalanceCounts* counts,
                      Gradients* gradients, LossSums* sums, PassMemory* memory);

}  // namespace emo

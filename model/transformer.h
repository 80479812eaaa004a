// The whole model: embedding, blocks, final norm, head; a forward pass to evaluate, and the forward
// and backward pass of a training micro-batch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/block.h"
#include "model/config.h"
#include "model/host/rope.h"
#include "model/losses.h"
#include "model/micro_batch.h"
#include "model/parameters.h"
#include "model/pass.h"

namespace emo {

// A model on this rank: what it is, and its parameters. Not copied; views point into the buffers.
struct Model {
  ModelConfig config;
  RoutingContract contract;
  ParameterLayout layout;
  FlatBuffers parameters;
  ModelWeights weights;  // views of `parameters`
  RopeTable rope;

  // Allocates; parameters are zero until initialise() or a checkpoint fills them. `positions`: of
  // the longest row or document that a pass will see.
  Model(const ModelConfig& config, const RoutingContract& contract, int64_t positions,
        const GridPosition& position = {}, const ExpertOrder& order = {});
  // Makes room for rows of so many positions; where it grows, to twice of what there was at least.
  void reserve_positions(int64_t positions);
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
};

// What a rank keeps of the gradients of parameters that several ranks hold.
enum class GradientMemory {
  kWhole,  // all of them
  kParts,  // memory for a few buckets at a time, for as long as they take to be summed over ranks
  kNone,   // none: a model to evaluate
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

// The first step of forward(): writes the rows of the embedding to x [T, D].
void forward_embedding(const Model& model, const Slice& slice, at::Tensor* x);

// Collective over ep. One block of forward(): from x [T, D], writes y [T, D]. For those who go
// through a model layer by layer, after forward_embedding().
void forward_block(const Model& model, const Slice& slice, const PassOptions& options,
                   int64_t layer, const at::Tensor& x, BlockActivations* kept, PassBuffers* buffers,
                   at::Tensor* y);

// Collective over ep. Fills `activations` up to `normalised`.
// REQUIRES: positions of the slice below model.rope.positions().
void forward(const Model& model, const Slice& slice, const PassOptions& options,
             Activations* activations, PassBuffers* buffers);

// Collective over ep, and over `world` for the balance counts. Adds a micro-batch's gradients to
// `gradients` (but see before_gradients) and its losses to `sums`: all forward passes of its slices
// first, then one all-reduce of the counts of expert choices, then the backward passes, so that the
// balance loss sees the whole micro-batch. Gradients of one slice and of many differ by the order
// of their sums alone.
// REQUIRES: options.world and options.loss are set; counts->start_step() before a step's first
// micro-batch.
void forward_backward(const Model& model, const MicroBatch& slices, const PassOptions& options,
                      BalanceCounts* counts, PassMemory* memory, Gradients* gradients,
                      LossSums* sums);

}  // namespace emo

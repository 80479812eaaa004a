// The whole model: embedding, blocks, final norm, head; a forward pass to evaluate, and the forward
// and backward pass of a training micro-batch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "model/backend.h"
#include "model/block.h"
#include "model/config.h"
#include "model/losses.h"
#include "model/micro_batch.h"
#include "model/parameters.h"
#include "model/pass.h"
#include "model/placed_slice.h"
#include "model/rope_table.h"
#include "model/weights.h"

namespace emo {

// A model on this rank: what it is, and its parameters. Not copied; views point into the buffers.
struct Model {
  ModelConfig config;
  RoutingContract contract;
  std::shared_ptr<Backend> backend;  // what computes it, and what its passes share
  ParameterLayout layout;
  std::vector<LayerPlacement> placements;  // [L]
  FlatBuffers parameters;                  // where the back end computes, of its type
  ModelWeights weights;                    // views of `parameters`
  RopeTable rope;

  // Allocates; parameters are zero until initialise(), a checkpoint or load_parameters() fills
  // them. `positions`: of the longest row or document that a pass will see. Without a back end: on
  // the host. Fails where the back end has limits for such a model.
  Model(const ModelConfig& config, const RoutingContract& contract, int64_t positions,
        const GridPosition& position = {}, const ExpertOrder& order = {},
        std::shared_ptr<Backend> backend = nullptr);
  // Makes room for rows of so many positions; where it grows, to twice of what there was at least.
  void reserve_positions(int64_t positions);
  at::Device device() const { return parameters.dense.device(); }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
};

// Copies fp32 buffers of the same layout on the host into the model's parameters, rounding to its
// type.
void load_parameters(const FlatBuffers& host, Model* model);

// What a rank keeps of the gradients of parameters that several ranks hold.
enum class GradientMemory {
  kWhole,  // all of them
  kParts,  // memory for a few buckets at a time, for as long as they take to be summed over ranks
};

// Gradients of a model, where it is, fp32.
struct Gradients {
  ParameterLayout layout;  // the model's; with kParts buckets follow one another in the same memory
  FlatBuffers buffers;     //
  ModelWeights views;      // into `buffers`
  explicit Gradients(const Model& model, GradientMemory memory = GradientMemory::kWhole);
  Gradients(const Gradients&) = delete;
  Gradients& operator=(const Gradients&) = delete;
};

// What a forward pass keeps for its backward pass; see Backend::keeps_memory().
struct Activations {
  PlacedSlice slice;
  std::vector<BlockActivations> blocks;  // [L]; with Recompute::kBlock only x and moe.routing
  at::Tensor last;                       // Residual [T, D] output of the last block
};

// Memory that all passes share, one after another.
struct PassBuffers {
  BlockActivations recomputed;  // of one block at a time, with Recompute::kBlock
  at::Tensor ignored;           // Residual [T, D] the output of a block that is computed again
  Normalised normalised;        // of the final norm: input of the head
  at::Tensor d_normalised;      // Residual [T, D]
  at::Tensor d;                 // Residual [T, D] gradient of the residual stream
  BlockBuffers block;
  std::vector<ExchangeCounters> traffic;  // [L] counted up from pass to pass
};

// The memory of a training pass: activations of every slice, and one set of buffers.
struct PassMemory {
  std::vector<Activations> slices;
  PassBuffers buffers;
};

// A slice where the model computes, for passes with these settings.
// REQUIRES: positions of the slice below model.rope.positions().
PlacedSlice place_slice(const Model& model, const Slice& slice, const PassSettings& settings);

// The first step of forward(): writes the rows of the embedding to x Residual [T, D].
void forward_embedding(const Model& model, const PlacedSlice& slice, at::Tensor* x);

// Collective over ep. One block of forward(): from x Residual [T, D], writes y [T, D]. For those
// who go through a model layer by layer, after forward_embedding().
void forward_block(const Model& model, const PlacedSlice& slice, const PassOptions& options,
                   int64_t layer, const at::Tensor& x, BlockActivations* kept, PassBuffers* buffers,
                   at::Tensor* y);

// Collective over ep. Fills `activations`; as of place_slice().
void forward(const Model& model, const Slice& slice, const PassOptions& options,
             Activations* activations, PassBuffers* buffers);

// Collective over ep, and over `world` for the balance counts. Adds a micro-batch's gradients to
// `gradients` (but see before_gradients) and its losses to `sums`: all forward passes of its slices
// first, then one all-reduce of the counts of expert choices, then the backward passes, so that the
// balance loss sees the whole micro-batch. Gradients of one slice and of many differ by the order
// of their sums alone. Of `memory` the routings stay until the next pass; a device gives back all
// else, and nothing waits for it but the plans of the exchange.
//
// REQUIRES: options.world and options.loss are set; no settings of an evaluation;
// counts->start_step() before a step's first micro-batch.
void forward_backward(const Model& model, const MicroBatch& slices, const PassOptions& options,
                      BalanceCounts* counts, PassMemory* memory, const Gradients& gradients,
                      const StepSums& sums);

}  // namespace emo

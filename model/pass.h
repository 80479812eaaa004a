// What a pass over the model is told beside the model and its rows.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "model/backend.h"
#include "model/config.h"
#include "model/losses.h"
#include "model/profile.h"
#include "model/router.h"
#include "parallel/communicator.h"
#include "parallel/expert_exchange.h"

namespace emo {

// How a pass computes: one value on its whole way, from a run's config or an evaluation's options
// to the router and the exchange.
struct PassSettings {
  std::optional<PoolPolicy> pool;     // an evaluation's; without: the contract's
  uint64_t seed = 0;                  // of pool sizes: run.seed
  std::vector<ExpertSubset> subsets;  // [L], or empty: all experts
  bool routed_off = false;            // evaluation: as if the routed experts answered zero
  ExchangeMode exchange = ExchangeMode::kOncePerRank;
  Recompute recompute = Recompute::kNone;
  // Of what is stored between products; a device stores all in the type of its parameters.
  Precision precision = Precision::kFp32;

  const PoolPolicy& pool_of(const RoutingContract& contract) const {
    return pool ? *pool : contract.pool;
  }
};

// The settings of a pass, and what it works with. Who makes one sets `ep`.
struct PassOptions {
  Communicator* ep = nullptr;  // this rank's expert group
  PassSettings settings;
  bool want_contributions = false;  // fill MoeActivations::contributions
  KeyValueCache* cache = nullptr;   // decoding: what came before the slice's spans, and grows
  Profile* profile = nullptr;
  // Of a training pass: all ranks, for the counts of the balance loss; and its losses' divisor.
  Communicator* world = nullptr;
  LossOptions loss;
  bool trains() const { return world != nullptr; }
  // Called before a bucket of parameters (parameters.h) is first read by a forward pass, and before
  // the first and after the last addition to a bucket of gradients by a backward pass; for each
  // slice of a micro-batch anew. May be empty.
  std::function<void(size_t bucket)> before_parameters, after_gradients;
  // Answers whether the bucket's gradients of routed experts hold sums that are to be added to; if
  // not, the pass writes over them. All other gradients are added to: it makes them ready for that.
  // Empty: all are added to.
  std::function<bool(size_t bucket)> before_gradients;
};

// What is the same for all blocks of a pass.
struct BlockContext {
  Backend& backend;
  const ModelConfig& config;
  const RoutingContract& contract;
  const RopeTable& rope;
  const std::vector<LayerPlacement>& placements;  // [L]
  const PassOptions& pass;
  at::ScalarType stored;  // see backend.h
  // Backward: whether the gradients of routed experts are added to, or written over.
  bool onto_expert_gradients = true;
};

}  // namespace emo

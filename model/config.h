// What a model is: its sizes, and the contract by which its router chooses experts. Plain values;
// train/config/run_config.h reads them from YAML, train/model_folder/hugging_face.h from
// config.json.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

namespace emo {

// Sizes. num_experts, experts_per_layer and top_k count the shared experts, as the reference's do;
// the code works with E = routed_experts(layer) and K = routed_top_k(layer), and converts here and
// nowhere else.
struct ModelConfig {
  int64_t vocab_size = 0;                  // V, rows stored
  int64_t d_model = 0;                     // D
  int64_t n_layers = 0;                    // L
  int64_t n_heads = 0;                     // H
  int64_t d_expert = 0;                    // F
  int64_t num_experts = 0;                 // E + shared
  std::vector<int64_t> experts_per_layer;  // [L] of a model that was cut to budgets that differ,
                                           // num_experts the largest; empty: num_experts in each
  int64_t num_shared_experts = 1;          // the last ones; every token uses them, with weight 1
  int64_t top_k = 0;                       // K + shared
  int64_t d_ffn = 0;                       // width of dense layers
  std::vector<int64_t> dense_layers;       // layers without experts, ascending
  double rope_theta = 500000;              //
  double norm_epsilon = 1e-6;              //
  bool qk_norm = false;                    // queries and keys are normalised (model/host/qk_norm.h)
  bool selection_bias = false;             // routers have one: train/optimizer/selection_bias.h
  double init_std = 0.02;                  // of the initial matrices
  uint64_t init_seed = 0;                  //

  // The largest of all layers; 0 in a dense model, whatever its counts of experts say.
  int64_t routed_experts() const { return moe_layers() > 0 ? num_experts - num_shared_experts : 0; }
  int64_t routed_top_k() const { return top_k - num_shared_experts; }
  // Of one layer; 0 in a dense one.
  int64_t experts(int64_t layer) const {
    if (is_dense(layer)) return 0;
    return experts_per_layer.empty() ? num_experts : experts_per_layer[layer];
  }
  int64_t routed_experts(int64_t layer) const {
    return is_dense(layer) ? 0 : experts(layer) - num_shared_experts;
  }
  int64_t routed_top_k(int64_t layer) const {
    return std::min(routed_top_k(), routed_experts(layer));
  }
  int64_t head_dim() const { return d_model / n_heads; }
  bool is_dense(int64_t layer) const {
    for (const int64_t dense : dense_layers) {
      if (dense == layer) return true;
    }
    return false;
  }
  int64_t moe_layers() const { return n_layers - static_cast<int64_t>(dense_layers.size()); }
};

// What weights and stored activations are for the matrix products of a pass.
enum class Precision { kFp32, kBf16 };

// What a backward pass computes again instead of keeping it from the forward pass. Changes no bit.
enum class Recompute {
  kNone,
  kMoe,    // what is inside the experts, most of what a MoE layer keeps: their first product again
  kBlock,  // all of a block but its input and its routing: its whole forward pass again, exchange
           // included
};

// How large a document's expert pool is. A size of E or more masks nothing.
struct PoolPolicy {
  enum class Kind {
    kNone,   // no pools: the standard MoE
    kRange,  // uniform in [min, max], both included; a fixed size is min == max
    kTopP,   // the smallest pool whose share of the document's scores reaches top_p, in [min, max]
  };
  Kind kind = Kind::kRange;
  int64_t min = 8;
  int64_t max = 128;
  double top_p = 0;
  std::optional<int64_t> eval;  // fixed size in evaluation during training; none: no pools there
  std::vector<int64_t> min_by_layer = {};  // [L] where layers differ, `min` the smallest; empty:
                                           // min in each

  int64_t min_of(int64_t layer) const { return min_by_layer.empty() ? min : min_by_layer[layer]; }
  // What the layer's router is told.
  PoolPolicy of_layer(int64_t layer) const {
    PoolPolicy policy = *this;
    policy.min = min_of(layer);
    policy.min_by_layer.clear();
    return policy;
  }
  static PoolPolicy none() {
    PoolPolicy policy;
    policy.kind = Kind::kNone;
    return policy;
  }
};

// Pools that shrink while a model is trained, from all experts at its first step to the policy's
// after `steps` of them: scheduled_policy() of model/pool_sizes.h.
struct PoolSchedule {
  int64_t steps = 0;  // 0: none, the policy's from the first step on
};

enum class MaskTime { kBeforeSoftmax, kAfterSoftmax };
enum class ScoresSeen { kMasked, kFull };
enum class BalanceScope { kRank, kMicroBatch, kGlobalBatch, kDocument };
enum class LossTokens { kAll, kLabelled };
enum class PoolDraw { kPerLayer, kPerDocument };

// The routing contract (design.md), as far as the router sees it. Which document an end-of-document
// token routes with is decided before, by the routing spans of a batch.
struct RoutingContract {
  MaskTime mask = MaskTime::kBeforeSoftmax;
  ScoresSeen balance_sees = ScoresSeen::kMasked;
  ScoresSeen z_sees = ScoresSeen::kMasked;
  BalanceScope balance_scope = BalanceScope::kMicroBatch;
  // Which tokens the balance and z losses are of. In pretraining nearly all tokens have a label. In
  // tuning on answers few have, and losses over all tokens, divided by the number of labels, would
  // be many times as strong.
  LossTokens losses_over = LossTokens::kAll;
  PoolPolicy pool;
  PoolSchedule pool_schedule;
  PoolDraw pool_draw = PoolDraw::kPerLayer;
  double jitter = 0;     // noise on the router's input in training: router_jitter.h
  double bias_rate = 0;  // of ModelConfig::selection_bias, which is there where this is not 0
  double balance_weight = 0.1;  // divided by the number of MoE layers where it is used
  double z_weight = 0.001;      // likewise
};

}  // namespace emo

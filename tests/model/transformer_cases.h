// What the transformer's passes are tested with, on every back end.
#pragma once

#include <vector>

#include "model/config.h"
#include "tests/model/backends.h"
#include "tests/model/sample_configs.h"

namespace emo {

constexpr auto kRange = PoolPolicy::Kind::kRange;
constexpr auto kNone = PoolPolicy::Kind::kNone;
constexpr auto kTopP = PoolPolicy::Kind::kTopP;
constexpr auto kAfter = MaskTime::kAfterSoftmax;
constexpr auto kBefore = MaskTime::kBeforeSoftmax;
constexpr auto kFull = ScoresSeen::kFull;
constexpr auto kDocument = BalanceScope::kDocument;
constexpr auto kMasked = ScoresSeen::kMasked;

inline PoolPolicy pool_of(PoolPolicy::Kind kind, int64_t min, int64_t max, double top_p = 0,
                          const std::vector<int64_t>& min_by_layer = {}) {
  PoolPolicy pool;
  pool.kind = kind;
  pool.min = min;
  pool.max = max;
  pool.top_p = top_p;
  pool.min_by_layer = min_by_layer;
  return pool;
}

struct TransformerCase {
  const char* name;
  PoolPolicy pool = pool_of(kRange, 4, 13);
  MaskTime mask = kBefore;
  ScoresSeen balance_sees = kMasked, z_sees = kMasked;
  int64_t shared = 1;
  std::vector<int64_t> dense = {};
  double mean_length = 20;  // of documents; see random_batch()
  int64_t slices = 1;
  Recompute recompute = Recompute::kNone;
  int64_t routed_top_k = 3;
  LossTokens losses_over = LossTokens::kAll;
  bool qk_norm = false;
  std::vector<int64_t> experts_per_layer = {};
  BalanceScope balance_scope = BalanceScope::kMicroBatch;
  double jitter = 0;
  bool selection_bias = false;
};

// On the host with widths that nothing divides.
inline ModelConfig config_of(const TransformerCase& c, On where) {
  ModelConfig config = small_config();
  if (where == On::kDevice) config.d_expert = 16;
  config.d_ffn = where == On::kDevice ? 24 : 21;
  config.num_experts = 13 + c.shared;
  config.num_shared_experts = c.shared;
  config.top_k = c.routed_top_k + c.shared;
  config.dense_layers = c.dense;
  config.qk_norm = c.qk_norm;
  config.experts_per_layer = c.experts_per_layer;
  config.selection_bias = c.selection_bias;
  return config;
}

inline RoutingContract contract_of(const TransformerCase& c) {
  RoutingContract contract;
  contract.pool = c.pool;
  contract.mask = c.mask;
  contract.balance_sees = c.balance_sees;
  contract.z_sees = c.z_sees;
  contract.losses_over = c.losses_over;
  contract.balance_scope = c.balance_scope;
  contract.jitter = c.jitter;
  return contract;
}

inline const std::vector<TransformerCase>& transformer_cases() {
  static const std::vector<TransformerCase> cases = {
      {.name = "range"},
      {.name = "none", .pool = pool_of(kNone, 3, 13)},
      {.name = "fixed", .pool = pool_of(kRange, 5, 5)},
      {.name = "top_p", .pool = pool_of(kTopP, 3, 9, 0.6)},
      {.name = "after", .mask = kAfter, .balance_sees = kFull, .z_sees = kFull},
      {.name = "after_masked", .mask = kAfter},
      {.name = "after_masked_z", .mask = kAfter, .balance_sees = kFull},
      {.name = "after_none", .pool = pool_of(kNone, 3, 13), .mask = kAfter, .balance_sees = kFull},
      {.name = "before_full", .balance_sees = kFull},
      {.name = "before_z_full", .z_sees = kFull},
      {.name = "before_both_full", .balance_sees = kFull, .z_sees = kFull},
      {.name = "two_shared", .shared = 2},
      {.name = "no_shared", .shared = 0},
      {.name = "dense_first", .dense = {0}},
      {.name = "dense_layer", .dense = {1}},
      {.name = "all_dense", .dense = {0, 1, 2}},
      {.name = "one_token_documents", .mean_length = 1},
      {.name = "short_documents", .mean_length = 8},
      {.name = "whole_rows", .mean_length = 0},
      {.name = "slices", .slices = 2},
      {.name = "more_slices_than_rows", .slices = 7, .recompute = Recompute::kBlock},
      {.name = "recompute_moe", .shared = 2, .dense = {1}, .recompute = Recompute::kMoe},
      {.name = "qk_norm", .shared = 0, .dense = {1}, .slices = 2, .qk_norm = true},
      {.name = "labelled", .slices = 2, .losses_over = LossTokens::kLabelled},
      {.name = "labelled_full",
       .balance_sees = kFull,
       .z_sees = kFull,
       .losses_over = LossTokens::kLabelled},
      {.name = "labelled_after",
       .mask = kAfter,
       .z_sees = kFull,
       .losses_over = LossTokens::kLabelled},
      {.name = "labelled_standard",
       .pool = pool_of(kNone, 3, 13),
       .dense = {1},
       .losses_over = LossTokens::kLabelled},
      // A pool larger than a layer, and a layer with fewer than top k.
      {.name = "budgets", .slices = 2, .experts_per_layer = {6, 14, 3}},
      {.name = "budgets_after",
       .pool = pool_of(kTopP, 3, 9, 0.6),
       .mask = kAfter,
       .balance_sees = kFull,
       .z_sees = kFull,
       .dense = {0},
       .experts_per_layer = {14, 9, 14}},
      {.name = "minima", .pool = pool_of(kRange, 4, 13, 0, {10, 4, 7}), .slices = 2},
      {.name = "top_p_minima", .pool = pool_of(kTopP, 3, 9, 0.4, {7, 3, 9}), .dense = {1}},
      {.name = "document", .slices = 2, .balance_scope = kDocument},
      {.name = "document_standard",
       .pool = pool_of(kNone, 3, 13),
       .dense = {1},
       .recompute = Recompute::kBlock,
       .balance_scope = kDocument},
      {.name = "document_full", .balance_sees = kFull, .balance_scope = kDocument},
      {.name = "document_after", .mask = kAfter, .mean_length = 0, .balance_scope = kDocument},
      {.name = "document_top_p",
       .pool = pool_of(kTopP, 3, 9, 0.6),
       .mask = kAfter,
       .balance_sees = kFull,
       .z_sees = kFull,
       .balance_scope = kDocument},
      // Documents of one token at the end of a row have no label.
      {.name = "document_labelled",
       .mean_length = 3,
       .slices = 2,
       .losses_over = LossTokens::kLabelled,
       .balance_scope = kDocument},
      {.name = "jitter", .slices = 2, .jitter = 0.4},
      {.name = "jitter_after",
       .mask = kAfter,
       .balance_sees = kFull,
       .z_sees = kFull,
       .dense = {0},
       .recompute = Recompute::kBlock,
       .balance_scope = kDocument,
       .jitter = 0.1},
      {.name = "bias", .shared = 2, .slices = 2, .selection_bias = true},
      {.name = "bias_after",
       .pool = pool_of(kTopP, 3, 9, 0.6),
       .mask = kAfter,
       .balance_sees = kFull,
       .z_sees = kFull,
       .dense = {1},
       .selection_bias = true},
      {.name = "bias_budgets",
       .recompute = Recompute::kBlock,
       .experts_per_layer = {6, 14, 3},
       .balance_scope = kDocument,
       .jitter = 0.1,
       .selection_bias = true},
      {.name = "document_budgets",
       .slices = 2,
       .experts_per_layer = {6, 14, 3},
       .balance_scope = kDocument}};
  return cases;
}

}  // namespace emo

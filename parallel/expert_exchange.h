// Tokens to the ranks that hold their experts, and results back.
//
// A token travels once to each rank that holds at least one of its experts, with the list of
// experts it wants there; results of the experts of one rank are added up on that rank before they
// return. The naive path, one copy of the token for each of its experts, is the same code with
// another plan, and the reference that tests compare with.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "parallel/communicator.h"

namespace emo {

// Which routed experts a rank holds: consecutive ones, as even as it goes, the first ranks one
// more.
struct ExpertPlacement {
  int64_t experts = 0;                // E
  int64_t ranks = 1;                  // P
  int64_t first(int64_t rank) const;  // first(P) == E
  int64_t count(int64_t rank) const { return first(rank + 1) - first(rank); }
  int64_t owner(int64_t expert) const;
};

enum class ExchangeMode {
  kOncePerRank,
  kOncePerExpert,  // the naive reference
};

// Who sends what where, for one MoE layer and one batch; made in the forward pass, used again in
// the backward pass. A *row* is a token as it stands on a rank that has experts for it; a *pair* is
// (row, one of its experts).
struct ExchangePlan {
  // As the sender of this rank's T tokens, in order of destination ranks.
  std::vector<int64_t> send_rows, send_pairs;  // [P]
  std::vector<int32_t> token_of_sent_row;      // [sum(send_rows)]
  std::vector<int32_t> slot_of_sent_pair;      // [sum(send_pairs)] t * K + k

  // As the receiver of R rows with Q pairs, in order of source ranks.
  std::vector<int64_t> receive_rows, receive_pairs;  // [P]
  int64_t rows = 0;                                  // R
  int64_t pairs = 0;                                 // Q

  // Pairs sorted by this rank's experts; within an expert in order of arrival.
  std::vector<int64_t> expert_begin;     // [experts here + 1] into the sorted pairs
  std::vector<int32_t> row_of_pair;      // [Q]
  std::vector<float> weight_of_pair;     // [Q] the router's weight
  std::vector<int32_t> arrival_of_pair;  // [Q] position among the pairs as they arrived

  // The same, by row.
  std::vector<int32_t> first_pair_of_row;  // [R + 1] into pair_of_row
  std::vector<int32_t> pair_of_row;        // [Q] positions in the sorted pairs

  bool local = false;  // one rank: rows are the tokens, nothing travels
};

// Collective over `ep`. Makes the plan for `experts` i32 [T, K] (routed experts; -1: slot unused)
// and `weights` f32 [T, K]. Reuses the memory of `plan`.
void plan_exchange(Communicator& ep, const ExpertPlacement& placement, const at::Tensor& experts,
                   const at::Tensor& weights, ExchangeMode mode, ExchangePlan* plan);

// A tensor's rows on their way; wait() before reading the answer.
struct RowsInFlight {
  at::Tensor sent;      // [sum(send_rows), D] packed
  at::Tensor received;  // [R, D]
  std::unique_ptr<Pending> pending;
  at::Tensor wait();  // [R, D]
};

// Collective over `ep`. Starts to send the rows of `tokens` f32 [T, D] to where the plan says.
RowsInFlight send_rows(Communicator& ep, const ExchangePlan& plan, const at::Tensor& tokens);

// Collective over `ep`, the mirror: adds each row of `rows` f32 [R, D] to its token in `tokens`
// f32 [T, D], ranks in order.
void return_rows(Communicator& ep, const ExchangePlan& plan, const at::Tensor& rows,
                 const at::Tensor& tokens);

// Collective over `ep`: one number per pair back to its slot. `values` f32 [Q] in sorted order;
// `slots` f32 [T, K] is overwritten where a slot is used.
void return_pairs(Communicator& ep, const ExchangePlan& plan, const at::Tensor& values,
                  const at::Tensor& slots);

}  // namespace emo

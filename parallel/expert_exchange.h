// Tokens to the ranks that hold their experts, and results back.
//
// A token travels once to each rank that holds at least one of its experts, with the list of
// experts it wants there; results of the experts of one rank are added up on that rank before they
// return. The naive path, one copy of the token for each of its experts, is the same code with
// another plan, and the reference that tests compare with.
//
// Rows for the rank's own experts never enter a collective, nor are they copied: they come first in
// every list here, and the experts read them, and add to them, where the tokens are.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/traffic.h"

namespace emo {

// Which routed experts of a layer a rank holds: those at consecutive positions, as even as it goes,
// the first ranks one more.
struct ExpertPlacement {
  int64_t experts = 0;                // E
  int64_t ranks = 1;                  // P
  std::vector<int32_t> order = {};    // [E] the expert at each position; empty: by number
  int64_t first(int64_t rank) const;  // position; first(P) == E
  int64_t count(int64_t rank) const { return first(rank + 1) - first(rank); }
  int64_t owner(int64_t position) const;
  int64_t expert_at(int64_t position) const { return order.empty() ? position : order[position]; }
};

// Whether `order` holds each of 0 ... experts - 1 once.
bool is_permutation(const std::vector<int32_t>& order, int64_t experts);

enum class ExchangeMode {
  kOncePerRank,
  kOncePerExpert,  // the naive reference
};

// Who sends what where, for one MoE layer and one batch; made in the forward pass, used again in
// the backward pass. A *row* is a token as it stands on a rank that has experts for it; a *pair* is
// (row, one of its experts).
struct ExchangePlan {
  int64_t own_rows = 0, own_pairs = 0;  // of tokens here for experts here

  // As the sender of this rank's T tokens: own rows, then those for the other ranks in order.
  std::vector<int64_t> send_rows, send_pairs;  // [P] to other ranks; 0 for this one
  std::vector<int32_t> token_of_sent_row;      // [own_rows + sum(send_rows)]
  std::vector<int32_t> slot_of_sent_pair;      // [own_pairs + sum(send_pairs)] t * K + k

  // As the receiver of R rows with Q pairs: own rows, then those of the other ranks in order.
  std::vector<int64_t> receive_rows, receive_pairs;  // [P] from other ranks; 0 for this one
  int64_t rows = 0;                                  // R = own_rows + sum(receive_rows)
  int64_t pairs = 0;                                 // Q = own_pairs + sum(receive_pairs)

  // Pairs sorted by this rank's experts; within an expert in order of arrival.
  std::vector<int64_t> expert_begin;     // [experts here + 1] into the sorted pairs
  std::vector<int32_t> row_of_pair;      // [Q]
  std::vector<float> weight_of_pair;     // [Q] the router's weight
  std::vector<int32_t> arrival_of_pair;  // [Q] position among the pairs as they arrived

  // The same, by row.
  std::vector<int32_t> first_pair_of_row;  // [R + 1] into pair_of_row
  std::vector<int32_t> pair_of_row;        // [Q] positions in the sorted pairs

  int64_t arrived_rows() const { return rows - own_rows; }
  // Tokens up to the last that has an expert here: own rows stand in order of tokens.
  int64_t own_tokens() const { return own_rows == 0 ? 0 : token_of_sent_row[own_rows - 1] + 1; }
};

// Where the rows of a plan lie: row r < own_rows is the token token_of_sent_row[r], the others
// stand in order in `arrived`.
struct PlanRows {
  at::Tensor tokens;   // [T, D]
  at::Tensor arrived;  // [R - own_rows, D]
};

// What all exchanges of a rank share, one after another: memory, and counts of what they cost.
struct ExchangeBuffers {
  at::Tensor sent;      // [sum(send_rows), D] packed
  at::Tensor returned;  // the same shape, of what return_rows() was given
  ExchangeCounters counters;
};

// Collective over `ep`. Makes the plan for `experts` i32 [T, K] (routed experts; -1: slot unused)
// and `weights` f32 [T, K]. Reuses the memory of `plan`. One message to each rank, which tells its
// own size; no round trip before it.
void plan_exchange(Communicator& ep, const ExpertPlacement& placement, const at::Tensor& experts,
                   const at::Tensor& weights, ExchangeMode mode, ExchangePlan* plan,
                   ExchangeBuffers* buffers);

// Rows on their way; where they go and the buffers of the exchange stay untouched until wait().
struct RowsInFlight {
  std::unique_ptr<Pending> pending;  // null where nothing travels
  ExchangeCounters* counters;  // to which the time until they are here is added; null: to none
  void wait();
};

// Collective over `ep`. Starts to send the rows of `tokens` [T, D], of any type, to where the plan
// says; others' arrive in `arrived` [R - own_rows, D], whose memory is reused. What travels is
// packed before this returns; own rows stay in `tokens` until the experts have read them.
RowsInFlight send_rows(Communicator& ep, const ExchangePlan& plan, const at::Tensor& tokens,
                       at::Tensor* arrived, ExchangeBuffers* buffers);

// Collective over `ep`, the mirror: starts to send back what stands in `rows` f32 or bf16
// [R - own_rows, D] for each row that arrived; `rows` stays untouched until wait().
RowsInFlight return_rows(Communicator& ep, const ExchangePlan& plan, const at::Tensor& rows,
                         ExchangeBuffers* buffers);

// After return_rows and wait(): adds each row that came back to its token in `tokens` f32 [T, D],
// ranks in order.
void add_returned(const ExchangePlan& plan, const at::Tensor& tokens,
                  const ExchangeBuffers& buffers);

// Collective over `ep`: one number per pair back to its slot. `values` f32 [Q] in sorted order;
// `slots` f32 [T, K] is overwritten where a slot is used.
void return_pairs(Communicator& ep, const ExchangePlan& plan, const at::Tensor& values,
                  const at::Tensor& slots, ExchangeBuffers* buffers);

}  // namespace emo

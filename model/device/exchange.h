// Tokens to the ranks that hold their experts and back (parallel/expert_exchange.h) with all of the
// work on the device: a token travels once to each rank that holds at least one of its experts,
// with the list of experts it wants there; results of one rank's experts are added up before they
// return.
//
// The host waits for the device once a layer and forward pass, for the numbers of rows and pairs
// that travel; on one rank never. The backward pass uses the same plan and waits for nothing.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/backend.h"
#include "parallel/communicator.h"
#include "parallel/expert_exchange.h"

namespace emo::device {

// Experts are called by their position in the placement's order in everything below.
struct ExchangePlan {
  bool local = true;  // one rank: rows are the tokens, nothing travels
  int64_t rows = 0;   // R on this rank: own ones first, then those of the other ranks in order
  int64_t pairs = 0;  // rows of experts' inputs, padding included: an upper bound where local

  // As the sender of T tokens: own rows first, then those for the other ranks in order.
  int64_t own_rows = 0;
  std::vector<int64_t> send_rows, receive_rows;  // [P] to and from other ranks; 0 for this one
  at::Tensor experts;                            // i32 [T, K] of the tokens
  at::Tensor bounds;                             // i32 [P, 2] experts of each part
  at::Tensor token_of_row;                       // i32 [own_rows + sum(send_rows)]
  at::Tensor row_of;                             // i32 [P, T] where a token's row is; -1: none

  // As the receiver: slot r * K + k is the k-th expert of row r, if it is here.
  at::Tensor weights;       // f32 [R * K]
  at::Tensor ends;          // i32 [experts here] of the pairs sorted by expert, padded
  at::Tensor slot_of_pair;  // i32 [pairs]; -1: padding
  at::Tensor pair_of_slot;  // i32 [R, K]; -1: not here
};

// Collective over `ep`. chosen i32 [T, K] experts by number (-1: slot unused), weights f32 [T, K].
// `counters`, here and below, where not null: adds what this rank sends, and the pairs of its
// experts.
ExchangePlan plan_exchange(Communicator& ep, const LayerPlacement& where, const at::Tensor& chosen,
                           const at::Tensor& weights, ExchangeCounters* counters = nullptr);

// Collective over `ep`. Starts to send the rows of tokens S [T, D] to where the plan says; all rows
// S [R, D], own ones too, are in `rows` after wait(). Where the plan is local nothing happens: rows
// are the tokens.
RowsInFlight send_rows(Communicator& ep, const ExchangePlan& plan, const at::Tensor& tokens,
                       at::Tensor* rows, ExchangeCounters* counters = nullptr);

// Collective over `ep`, the mirror: adds each row of S [R, D] to its token in tokens S [T, D].
void return_rows(Communicator& ep, const ExchangePlan& plan, const at::Tensor& rows,
                 const at::Tensor& tokens, ExchangeCounters* counters = nullptr);

// Collective over `ep`: one number for each slot, f32 [R, K], back to its token's, f32 [T, K].
at::Tensor return_slots(Communicator& ep, const ExchangePlan& plan, const at::Tensor& values,
                        ExchangeCounters* counters = nullptr);

// The other part of the way: experts' inputs S [pairs, D] from rows S [R, D], padding zero; and
// rows S [R, D] as sums of experts' results S [pairs, D].
at::Tensor rows_to_pairs(const ExchangePlan& plan, const at::Tensor& rows);
at::Tensor pairs_to_rows(const ExchangePlan& plan, const at::Tensor& pairs);

}  // namespace emo::device

#include "model/device/exchange.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gt.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <numeric>
#include <tuple>

#include "model/device/kernels/exchange_index.h"
#include "model/device/kernels/rows.h"
#include "model/device/matrix.h"
#include "model/placed_slice.h"

namespace emo::device {
namespace {

int64_t sum(const std::vector<int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

// That so many rows of `matrix` leave this rank.
void count_bytes(int64_t rows, const at::Tensor& matrix, ExchangeCounters* counters) {
  if (counters == nullptr) return;
  counters->bytes += static_cast<double>(rows * matrix.size(1) * matrix.element_size());
}

// The rank of each part: this one's first, then the others in order.
std::vector<int64_t> ranks_of_parts(int64_t own, int64_t ranks) {
  std::vector<int64_t> parts = {own};
  for (int64_t rank = 0; rank < ranks; ++rank) {
    if (rank != own) parts.push_back(rank);
  }
  return parts;
}

at::Tensor bounds_of_parts(const ExpertPlacement& placement, const std::vector<int64_t>& parts,
                           at::Device device) {
  const at::Tensor bounds =
      at::empty({static_cast<int64_t>(parts.size()), 2}, at::TensorOptions().dtype(at::kInt));
  auto* bound = bounds.mutable_data_ptr<int32_t>();
  for (const int64_t rank : parts) {
    *bound++ = static_cast<int32_t>(placement.first(rank));
    *bound++ = static_cast<int32_t>(placement.first(rank + 1));
  }
  return to_device(bounds, device);
}

// Sorts slots by their keys [R, K], an expert here or `experts_here`, into padded groups.
void sort_pairs(const at::Tensor& keys, int64_t experts_here, int64_t real_pairs,
                ExchangePlan* plan) {
  const auto options = keys.options();
  const auto [sorted, order] = at::sort(keys.view({-1}), /*stable=*/true, 0, false);
  const at::Tensor begin = at::empty({experts_here + 1}, options);
  const at::Tensor padded = at::empty({experts_here + 1}, options);
  expert_ranges(sorted, kGroupMultiple, begin, padded);
  const int64_t most = real_pairs + experts_here * (kGroupMultiple - 1);
  plan->pairs = (most + kGroupMultiple - 1) / kGroupMultiple * kGroupMultiple;
  plan->ends = padded.slice(0, 1);
  plan->slot_of_pair = at::empty({plan->pairs}, options);
  plan->pair_of_slot = at::empty_like(keys);
  place_pairs(sorted, order, begin, padded, plan->slot_of_pair, plan->pair_of_slot);
}

// Numbers of rows and pairs by rank, from those by part i64 [P, 2].
struct Counts {
  std::vector<int64_t> rows, pairs;
};

// Tells every rank how many rows and pairs it gets, and waits for the device to know them here: the
// one place where the host does.
std::pair<Counts, Counts> exchange_counts(Communicator& ep, const std::vector<int64_t>& parts,
                                          const at::Tensor& by_part) {
  const int64_t P = ep.size();
  const at::Tensor sent = at::empty_like(by_part);
  for (int64_t part = 0; part < P; ++part) sent[parts[part]].copy_(by_part[part]);
  const at::Tensor received = at::empty_like(sent);
  const std::vector<int64_t> one_each(P, 1);
  ep.all_to_all(received, one_each, sent, one_each);
  const at::Tensor both = at::stack({sent, received}).cpu();  // [2, P, 2]
  const auto* number = both.const_data_ptr<int64_t>();
  std::pair<Counts, Counts> counts;
  for (Counts* c : {&counts.first, &counts.second}) {
    for (int64_t rank = 0; rank < P; ++rank) {
      c->rows.push_back(*number++);
      c->pairs.push_back(*number++);
    }
  }
  return counts;
}

// What the rows of other ranks and our own want here: keys [R, K] and plan->weights.
at::Tensor exchange_records(Communicator& ep, int64_t experts_here, const at::Tensor& records,
                            int64_t K, ExchangePlan* plan) {
  const at::Tensor arrived = at::empty({plan->rows, 2 * K}, records.options());
  arrived.slice(0, 0, plan->own_rows).copy_(records.slice(0, 0, plan->own_rows));
  ep.all_to_all(arrived.slice(0, plan->own_rows), plan->receive_rows,
                records.slice(0, plan->own_rows), plan->send_rows);
  const at::Tensor keys = at::empty({plan->rows, K}, records.options().dtype(at::kInt));
  plan->weights = at::empty({plan->rows, K}, records.options());
  unpack_records(arrived, experts_here, keys, plan->weights);
  return keys;
}

}  // namespace

ExchangePlan plan_exchange(Communicator& ep, const LayerPlacement& where, const at::Tensor& chosen,
                           const at::Tensor& weights, ExchangeCounters* counters) {
  const ExpertPlacement& placement = where.placement;
  at::Tensor experts = chosen;
  if (where.position_of.defined()) {
    experts = at::empty_like(chosen);
    find_positions(chosen, where.position_of, experts);
  }
  const int64_t T = experts.size(0);
  const int64_t K = experts.size(1);
  const int64_t P = ep.size();
  const auto ints = experts.options();
  ExchangePlan plan;
  plan.local = P == 1;
  if (plan.local) {
    plan.rows = T;
    plan.weights = weights;
    const at::Tensor keys = at::empty_like(experts);
    local_keys(experts, placement.experts, keys);
    sort_pairs(keys, placement.experts, T * K, &plan);
    return plan;
  }
  const int64_t own = ep.rank();
  const std::vector<int64_t> parts = ranks_of_parts(own, P);
  plan.experts = experts;
  plan.bounds = bounds_of_parts(placement, parts, experts.device());
  const at::Tensor pairs = at::empty({P, T}, ints);
  count_pairs(experts, plan.bounds, pairs);
  const at::Tensor travels = at::gt(pairs, 0);
  plan.row_of = at::empty({P, T}, ints);
  plan.token_of_row = at::empty({P * T}, ints);
  const at::Tensor part_of_row = at::empty({P * T}, ints);
  number_rows(pairs, at::cumsum(travels.view({-1}), 0), plan.row_of, plan.token_of_row,
              part_of_row);
  const auto [sent, received] =
      exchange_counts(ep, parts, at::stack({travels.sum(1), pairs.sum(1)}, 1));

  plan.own_rows = sent.rows[own];
  plan.send_rows = sent.rows;
  plan.receive_rows = received.rows;
  plan.rows = sum(received.rows);
  plan.send_rows[own] = plan.receive_rows[own] = 0;
  plan.token_of_row = plan.token_of_row.slice(0, 0, sum(sent.rows));
  const at::Tensor records = at::empty({sum(sent.rows), 2 * K}, weights.options());
  pack_records(experts, weights, plan.bounds, plan.token_of_row, part_of_row, records);
  const int64_t experts_here = placement.count(own);
  const at::Tensor keys = exchange_records(ep, experts_here, records, K, &plan);
  sort_pairs(keys, experts_here, sum(received.pairs), &plan);
  count_bytes(sum(plan.send_rows), records, counters);
  if (counters != nullptr) counters->pairs += static_cast<double>(sum(received.pairs));
  return plan;
}

RowsInFlight send_rows(Communicator& ep, const ExchangePlan& plan, const at::Tensor& tokens,
                       at::Tensor* rows, ExchangeCounters* counters) {
  if (plan.local) return {nullptr, nullptr};
  count_bytes(sum(plan.send_rows), tokens, counters);
  const int64_t D = tokens.size(1);
  *rows = at::empty({plan.rows, D}, tokens.options());
  const at::Tensor sent = at::empty({sum(plan.send_rows), D}, tokens.options());
  gather_rows(tokens, plan.token_of_row.slice(0, plan.own_rows), 1, sent);
  RowsInFlight flight{
      ep.all_to_all_async(rows->slice(0, plan.own_rows), plan.receive_rows, sent, plan.send_rows),
      nullptr};
  gather_rows(tokens, plan.token_of_row.slice(0, 0, plan.own_rows), 1,
              rows->slice(0, 0, plan.own_rows));
  return flight;
}

void return_rows(Communicator& ep, const ExchangePlan& plan, const at::Tensor& rows,
                 const at::Tensor& tokens, ExchangeCounters* counters) {
  if (plan.local) {
    tokens.add_(rows);
    return;
  }
  count_bytes(sum(plan.receive_rows), rows, counters);
  const int64_t sent = plan.token_of_row.size(0);
  const at::Tensor returned = at::empty({sent, tokens.size(1)}, tokens.options());
  const std::unique_ptr<Pending> pending =
      ep.all_to_all_async(returned.slice(0, plan.own_rows), plan.send_rows,
                          rows.slice(0, plan.own_rows), plan.receive_rows);
  returned.slice(0, 0, plan.own_rows).copy_(rows.slice(0, 0, plan.own_rows));
  pending->wait();
  add_rows(returned, plan.row_of.t(), /*onto=*/true, tokens);
}

at::Tensor return_slots(Communicator& ep, const ExchangePlan& plan, const at::Tensor& values,
                        ExchangeCounters* counters) {
  if (plan.local) return values;
  count_bytes(sum(plan.receive_rows), values, counters);
  const at::Tensor returned =
      at::empty({plan.token_of_row.size(0), values.size(1)}, values.options());
  returned.slice(0, 0, plan.own_rows).copy_(values.slice(0, 0, plan.own_rows));
  ep.all_to_all(returned.slice(0, plan.own_rows), plan.send_rows, values.slice(0, plan.own_rows),
                plan.receive_rows);
  const at::Tensor slots = at::empty(plan.experts.sizes(), values.options());
  take_slots(plan.experts, plan.bounds, plan.row_of, returned, slots);
  return slots;
}

at::Tensor rows_to_pairs(const ExchangePlan& plan, const at::Tensor& rows) {
  const at::Tensor pairs = at::empty({plan.pairs, rows.size(1)}, rows.options());
  gather_rows(rows, plan.slot_of_pair, plan.pair_of_slot.size(1), pairs);
  return pairs;
}

at::Tensor pairs_to_rows(const ExchangePlan& plan, const at::Tensor& pairs) {
  const at::Tensor rows = at::empty({plan.rows, pairs.size(1)}, pairs.options());
  add_rows(pairs, plan.pair_of_slot, /*onto=*/false, rows);
  return rows;
}

}  // namespace emo::device

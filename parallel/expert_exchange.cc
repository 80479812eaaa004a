#include "parallel/expert_exchange.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "parallel/parallel_for.h"

namespace emo {
namespace {

// What the receiver must know of a pair.
struct WirePair {
  int32_t row;  // among the rows from this source
  int32_t expert;
  float weight;
};
constexpr int64_t kWireInts = sizeof(WirePair) / sizeof(int32_t);
constexpr int64_t kGrain = 256;  // rows a thread should at least copy

at::Tensor wire_view(std::vector<WirePair>& pairs) {
  return at::from_blob(pairs.data(), {static_cast<int64_t>(pairs.size()), kWireInts}, at::kInt);
}

int64_t sum(const std::vector<int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

// Fills the sender's side of the plan and the pairs to send.
std::vector<WirePair> plan_sending(const ExpertPlacement& placement, const at::Tensor& experts,
                                   const at::Tensor& weights, ExchangeMode mode,
                                   ExchangePlan* plan) {
  const int64_t T = experts.size(0);
  const int64_t K = experts.size(1);
  const auto* expert = experts.const_data_ptr<int32_t>();
  const auto* weight = weights.const_data_ptr<float>();
  std::vector<int32_t> owner(placement.experts);
  for (int64_t e = 0; e < placement.experts; ++e)
    owner[e] = static_cast<int32_t>(placement.owner(e));

  // Calls f(rank, token, slot, is_new_row) for every used slot, in order of tokens.
  std::vector<int64_t> last_token(placement.ranks);
  const auto for_each_pair = [&](const auto& f) {
    std::fill(last_token.begin(), last_token.end(), -1);
    for (int64_t slot = 0; slot < T * K; ++slot) {
      if (expert[slot] < 0) continue;
      const int64_t rank = owner[expert[slot]];
      const int64_t token = slot / K;
      const bool travels = last_token[rank] == token && mode == ExchangeMode::kOncePerRank;
      last_token[rank] = token;
      f(rank, token, slot, !travels);
    }
  };

  plan->send_rows.assign(placement.ranks, 0);
  plan->send_pairs.assign(placement.ranks, 0);
  for_each_pair([&](int64_t rank, int64_t, int64_t, bool is_new_row) {
    plan->send_rows[rank] += is_new_row ? 1 : 0;
    ++plan->send_pairs[rank];
  });
  std::vector<int64_t> first_row(placement.ranks), next_row(placement.ranks);
  std::vector<int64_t> next_pair(placement.ranks);
  std::exclusive_scan(plan->send_rows.begin(), plan->send_rows.end(), first_row.begin(),
                      int64_t{0});
  std::exclusive_scan(plan->send_pairs.begin(), plan->send_pairs.end(), next_pair.begin(),
                      int64_t{0});
  next_row = first_row;
  plan->token_of_sent_row.resize(sum(plan->send_rows));
  plan->slot_of_sent_pair.resize(sum(plan->send_pairs));
  std::vector<WirePair> pairs(plan->slot_of_sent_pair.size());
  for_each_pair([&](int64_t rank, int64_t token, int64_t slot, bool is_new_row) {
    if (is_new_row) plan->token_of_sent_row[next_row[rank]++] = static_cast<int32_t>(token);
    const int64_t pair = next_pair[rank]++;
    plan->slot_of_sent_pair[pair] = static_cast<int32_t>(slot);
    pairs[pair] = {static_cast<int32_t>(next_row[rank] - 1 - first_row[rank]),
                   static_cast<int32_t>(expert[slot] - placement.first(rank)), weight[slot]};
  });
  return pairs;
}

// Sorts the pairs that arrived by expert and indexes them by row. Pairs name rows by their source.
void plan_receiving(const std::vector<WirePair>& pairs, int64_t experts_here, ExchangePlan* plan) {
  plan->rows = sum(plan->receive_rows);
  plan->pairs = static_cast<int64_t>(pairs.size());
  std::vector<int32_t> row_of_arrival(pairs.size());
  int64_t arrival = 0;
  int32_t first_row = 0;
  for (size_t source = 0; source < plan->receive_pairs.size(); ++source) {
    for (int64_t n = 0; n < plan->receive_pairs[source]; ++n, ++arrival) {
      row_of_arrival[arrival] = first_row + pairs[arrival].row;
    }
    first_row += static_cast<int32_t>(plan->receive_rows[source]);
  }

  plan->expert_begin.assign(experts_here + 1, 0);
  plan->first_pair_of_row.assign(plan->rows + 1, 0);
  for (int64_t a = 0; a < plan->pairs; ++a) {
    TORCH_CHECK(pairs[a].expert >= 0 && pairs[a].expert < experts_here && pairs[a].row >= 0 &&
                    row_of_arrival[a] < plan->rows,
                "expert exchange: a peer sent a pair for row ", row_of_arrival[a], " of ",
                plan->rows, ", expert ", pairs[a].expert, " of ", experts_here);
    ++plan->expert_begin[pairs[a].expert + 1];
    ++plan->first_pair_of_row[row_of_arrival[a] + 1];
  }
  std::partial_sum(plan->expert_begin.begin(), plan->expert_begin.end(),
                   plan->expert_begin.begin());
  std::partial_sum(plan->first_pair_of_row.begin(), plan->first_pair_of_row.end(),
                   plan->first_pair_of_row.begin());

  plan->row_of_pair.resize(plan->pairs);
  plan->weight_of_pair.resize(plan->pairs);
  plan->arrival_of_pair.resize(plan->pairs);
  plan->pair_of_row.resize(plan->pairs);
  std::vector<int64_t> next(plan->expert_begin.begin(), plan->expert_begin.end() - 1);
  std::vector<int32_t> next_of_row(plan->first_pair_of_row.begin(),
                                   plan->first_pair_of_row.end() - 1);
  for (int64_t a = 0; a < plan->pairs; ++a) {
    const int64_t position = next[pairs[a].expert]++;
    plan->row_of_pair[position] = row_of_arrival[a];
    plan->weight_of_pair[position] = pairs[a].weight;
    plan->arrival_of_pair[position] = static_cast<int32_t>(a);
    plan->pair_of_row[next_of_row[row_of_arrival[a]]++] = static_cast<int32_t>(position);
  }
}

}  // namespace

int64_t ExpertPlacement::first(int64_t rank) const {
  return rank * (experts / ranks) + std::min(rank, experts % ranks);
}

int64_t ExpertPlacement::owner(int64_t expert) const {
  int64_t rank = 0;
  while (expert >= first(rank + 1)) ++rank;
  return rank;
}

void plan_exchange(Communicator& ep, const ExpertPlacement& placement, const at::Tensor& experts,
                   const at::Tensor& weights, ExchangeMode mode, ExchangePlan* plan) {
  TORCH_CHECK(
      experts.dim() == 2 && experts.sizes() == weights.sizes() && placement.ranks == ep.size(),
      "plan_exchange: experts ", experts.sizes(), ", weights ", weights.sizes(), " on ", ep.size(),
      " ranks");
  std::vector<WirePair> sent = plan_sending(placement, experts, weights, mode, plan);
  // One rank whose tokens all travel once: rows are the tokens themselves.
  plan->local =
      ep.size() == 1 && mode == ExchangeMode::kOncePerRank && plan->send_rows[0] == experts.size(0);
  if (ep.size() == 1) {
    plan->receive_rows = plan->send_rows;
    plan->receive_pairs = plan->send_pairs;
    plan_receiving(sent, placement.count(0), plan);
    return;
  }
  std::vector<int64_t> counts(2 * ep.size());
  for (int64_t rank = 0; rank < ep.size(); ++rank) {
    counts[2 * rank] = plan->send_rows[rank];
    counts[2 * rank + 1] = plan->send_pairs[rank];
  }
  const std::vector<int64_t> arriving = exchange_counts(ep, counts);
  plan->receive_rows.resize(ep.size());
  plan->receive_pairs.resize(ep.size());
  for (int64_t rank = 0; rank < ep.size(); ++rank) {
    plan->receive_rows[rank] = arriving[2 * rank];
    plan->receive_pairs[rank] = arriving[2 * rank + 1];
  }
  std::vector<WirePair> received(sum(plan->receive_pairs));
  ep.all_to_all(wire_view(received), plan->receive_pairs, wire_view(sent), plan->send_pairs);
  plan_receiving(received, placement.count(ep.rank()), plan);
}

at::Tensor RowsInFlight::wait() {
  if (pending != nullptr) pending->wait();
  pending.reset();
  sent.reset();
  return received;
}

RowsInFlight send_rows(Communicator& ep, const ExchangePlan& plan, const at::Tensor& tokens) {
  if (plan.local) return {{}, tokens, nullptr};
  const int64_t D = tokens.size(1);
  const auto count = static_cast<int64_t>(plan.token_of_sent_row.size());
  RowsInFlight flight{at::empty({count, D}, tokens.options()),
                      at::empty({plan.rows, D}, tokens.options()), nullptr};
  const auto* from = tokens.const_data_ptr<float>();
  auto* to = flight.sent.mutable_data_ptr<float>();
  parallel_for(count, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      std::memcpy(to + row * D, from + plan.token_of_sent_row[row] * D, D * sizeof(float));
    }
  });
  flight.pending =
      ep.all_to_all_async(flight.received, plan.receive_rows, flight.sent, plan.send_rows);
  return flight;
}

void return_rows(Communicator& ep, const ExchangePlan& plan, const at::Tensor& rows,
                 const at::Tensor& tokens) {
  const int64_t D = tokens.size(1);
  auto* to = tokens.mutable_data_ptr<float>();
  if (plan.local) {
    const auto* from = rows.const_data_ptr<float>();
    parallel_for(tokens.numel(), kGrain * D, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) to[i] += from[i];
    });
    return;
  }
  const auto count = static_cast<int64_t>(plan.token_of_sent_row.size());
  at::Tensor returned = at::empty({count, D}, tokens.options());
  ep.all_to_all(returned, plan.send_rows, rows, plan.receive_rows);
  const auto* from = returned.const_data_ptr<float>();
  // Columns are split between threads, not rows: a token may have rows from several ranks.
  parallel_for(D, 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = 0; row < count; ++row) {
      float* token = to + plan.token_of_sent_row[row] * D;
      for (int64_t d = begin; d < end; ++d) token[d] += from[row * D + d];
    }
  });
}

void return_pairs(Communicator& ep, const ExchangePlan& plan, const at::Tensor& values,
                  const at::Tensor& slots) {
  at::Tensor arrived = at::empty({plan.pairs, 1}, values.options());  // in order of arrival
  const auto* sorted = values.const_data_ptr<float>();
  auto* by_arrival = arrived.mutable_data_ptr<float>();
  for (int64_t i = 0; i < plan.pairs; ++i) by_arrival[plan.arrival_of_pair[i]] = sorted[i];
  const auto count = static_cast<int64_t>(plan.slot_of_sent_pair.size());
  at::Tensor returned = at::empty({count, 1}, values.options());
  ep.all_to_all(returned, plan.send_pairs, arrived, plan.receive_pairs);
  const auto* from = returned.const_data_ptr<float>();
  auto* to = slots.mutable_data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) to[plan.slot_of_sent_pair[i]] = from[i];
}

}  // namespace emo

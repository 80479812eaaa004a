#include "parallel/expert_exchange.h"

#include <ATen/ops/from_blob.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>
#include <utility>

#include "parallel/buffers.h"
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

// Adds the time from here to the end of the scope to `counters`.
class Waiting {
 public:
  explicit Waiting(ExchangeCounters* counters) : counters_(counters), begin_(Clock::now()) {}
  ~Waiting() {
    if (counters_ == nullptr) return;
    counters_->waited += std::chrono::duration<double>(Clock::now() - begin_).count();
  }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  ExchangeCounters* counters_;
  Clock::time_point begin_;
};

void count_bytes(int64_t count, size_t size, ExchangeCounters* counters) {
  counters->bytes += static_cast<double>(count) * static_cast<double>(size);
}

int64_t sum(const std::vector<int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

// Where each rank's part begins when rank `own`'s comes first and the others follow in order.
std::vector<int64_t> starts_own_first(const std::vector<int64_t>& counts, int64_t own) {
  std::vector<int64_t> starts(counts.size(), 0);
  int64_t next = counts[own];
  for (size_t rank = 0; rank < counts.size(); ++rank) {
    if (static_cast<int64_t>(rank) == own) continue;
    starts[rank] = next;
    next += counts[rank];
  }
  return starts;
}

// Fills the sender's side of the plan, own rows and pairs still counted in send_rows and
// send_pairs, and answers the pairs to send.
std::vector<WirePair> plan_sending(const ExpertPlacement& placement, int64_t own,
                                   const at::Tensor& experts, const at::Tensor& weights,
                                   ExchangeMode mode, ExchangePlan* plan) {
  const int64_t T = experts.size(0);
  const int64_t K = experts.size(1);
  const auto* expert = experts.const_data_ptr<int32_t>();
  const auto* weight = weights.const_data_ptr<float>();
  struct Place {
    int32_t rank, index;  // who holds the expert, and which of its experts that is
  };
  std::vector<Place> places(placement.experts);  // by expert
  for (int64_t position = 0; position < placement.experts; ++position) {
    const int64_t rank = placement.owner(position);
    places[placement.expert_at(position)] = {
        static_cast<int32_t>(rank), static_cast<int32_t>(position - placement.first(rank))};
  }

  // Calls f(rank, token, slot, is_new_row) for every used slot, in order of tokens.
  std::vector<int64_t> last_token(placement.ranks);
  const auto for_each_pair = [&](const auto& f) {
    std::fill(last_token.begin(), last_token.end(), -1);
    for (int64_t slot = 0; slot < T * K; ++slot) {
      if (expert[slot] < 0) continue;
      const int64_t rank = places[expert[slot]].rank;
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
  const std::vector<int64_t> first_row = starts_own_first(plan->send_rows, own);
  std::vector<int64_t> next_row = first_row;
  std::vector<int64_t> next_pair = starts_own_first(plan->send_pairs, own);
  plan->token_of_sent_row.resize(sum(plan->send_rows));
  plan->slot_of_sent_pair.resize(sum(plan->send_pairs));
  std::vector<WirePair> pairs(plan->slot_of_sent_pair.size());
  for_each_pair([&](int64_t rank, int64_t token, int64_t slot, bool is_new_row) {
    if (is_new_row) plan->token_of_sent_row[next_row[rank]++] = static_cast<int32_t>(token);
    const int64_t pair = next_pair[rank]++;
    plan->slot_of_sent_pair[pair] = static_cast<int32_t>(slot);
    pairs[pair] = {static_cast<int32_t>(next_row[rank] - 1 - first_row[rank]),
                   places[expert[slot]].index, weight[slot]};
  });
  return pairs;
}

// Takes what this rank sends itself out of the counts of what travels.
void set_own_apart(int64_t own, ExchangePlan* plan) {
  plan->own_rows = std::exchange(plan->send_rows[own], 0);
  plan->own_pairs = std::exchange(plan->send_pairs[own], 0);
}

// `pairs` of each rank name rows by their source and stand in order of rows: from them, how many
// rows come from where, and each pair's row here.
std::vector<int32_t> number_rows(const std::vector<WirePair>& pairs, ExchangePlan* plan) {
  std::vector<int32_t> row_of_arrival(pairs.size());
  plan->receive_rows.assign(plan->receive_pairs.size(), 0);
  int64_t arrival = 0;
  int64_t first_row = 0;
  const auto number = [&](int64_t count) {
    int64_t rows = 0;
    for (const int64_t end = arrival + count; arrival < end; ++arrival) {
      const int64_t row = pairs[arrival].row;
      TORCH_CHECK(row >= 0 && (row == rows - 1 || row == rows),
                  "expert exchange: a peer sent a pair for row ", row, " after ", rows, " rows");
      rows = row + 1;
      row_of_arrival[arrival] = static_cast<int32_t>(first_row + row);
    }
    first_row += rows;
    return rows;
  };
  number(plan->own_pairs);
  for (size_t source = 0; source < plan->receive_pairs.size(); ++source) {
    plan->receive_rows[source] = number(plan->receive_pairs[source]);
  }
  plan->rows = first_row;
  return row_of_arrival;
}

// Sorts the pairs that arrived by expert and indexes them by row.
void plan_receiving(const std::vector<WirePair>& pairs, int64_t experts_here, ExchangePlan* plan) {
  plan->pairs = static_cast<int64_t>(pairs.size());
  const std::vector<int32_t> row_of_arrival = number_rows(pairs, plan);

  plan->expert_begin.assign(experts_here + 1, 0);
  plan->first_pair_of_row.assign(plan->rows + 1, 0);
  for (int64_t a = 0; a < plan->pairs; ++a) {
    TORCH_CHECK(pairs[a].expert >= 0 && pairs[a].expert < experts_here,
                "expert exchange: a peer sent a pair for expert ", pairs[a].expert, " of ",
                experts_here);
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

// Rows `token_of_row` of `from`, one after another, to `to`.
void gather_rows(const int32_t* token_of_row, int64_t count, const at::Tensor& from,
                 const at::Tensor& to) {
  const int64_t bytes = from.size(1) * from.element_size();
  const auto* source = static_cast<const char*>(from.const_data_ptr());
  auto* target = static_cast<char*>(to.mutable_data_ptr());
  parallel_for(count, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      std::memcpy(target + row * bytes, source + token_of_row[row] * bytes, bytes);
    }
  });
}

// Rows of one rank on their way into tokens: `values` [count, D] belongs to the tokens from `token`
// to `last`, which stand in order.
template <typename Stored>
struct ReturnedRows {
  const int32_t* token;
  const int32_t* last;
  const Stored* values;
  ReturnedRows(const int32_t* tokens, int64_t count, const Stored* rows)
      : token(tokens), last(tokens + count), values(rows) {}
  void skip_to(int32_t first, int64_t D) {
    const int32_t* found = std::lower_bound(token, last, first);
    values += (found - token) * D;
    token = found;
  }
};

// Adds to each token of `tokens` [T, D] its rows, in order of ranks. Token by token, which reads
// and writes each once.
template <typename Stored>
void add_rows(const std::vector<ReturnedRows<Stored>>& ranks, const at::Tensor& tokens) {
  const int64_t D = tokens.size(1);
  auto* to = tokens.mutable_data_ptr<float>();
  // Threads take tokens, not rows: a token may have several rows where each expert has its own.
  parallel_for(tokens.size(0), kGrain, [&](int64_t begin, int64_t end) {
    std::vector<ReturnedRows<Stored>> left = ranks;
    for (ReturnedRows<Stored>& rows : left) rows.skip_to(static_cast<int32_t>(begin), D);
    for (int64_t t = begin; t < end; ++t) {
      for (ReturnedRows<Stored>& rows : left) {
        for (; rows.token < rows.last && *rows.token == t; ++rows.token, rows.values += D) {
          for (int64_t d = 0; d < D; ++d) to[t * D + d] += rows.values[d];
        }
      }
    }
  });
}

template <typename Stored>
void add_returned_of(const ExchangePlan& plan, const at::Tensor& returned,
                     const at::Tensor& tokens) {
  const int64_t D = tokens.size(1);
  const int32_t* token_of_row = plan.token_of_sent_row.data() + plan.own_rows;
  const auto* from = returned.const_data_ptr<Stored>();
  std::vector<ReturnedRows<Stored>> ranks;
  for (const int64_t count : plan.send_rows) {
    ranks.emplace_back(token_of_row, count, from);
    token_of_row += count;
    from += count * D;
  }
  add_rows(ranks, tokens);
}

}  // namespace

int64_t ExpertPlacement::first(int64_t rank) const {
  return rank * (experts / ranks) + std::min(rank, experts % ranks);
}

int64_t ExpertPlacement::owner(int64_t position) const {
  int64_t rank = 0;
  while (position >= first(rank + 1)) ++rank;
  return rank;
}

bool is_permutation(const std::vector<int32_t>& order, int64_t experts) {
  std::vector<uint8_t> seen(experts, 0);
  for (const int32_t expert : order) {
    if (expert < 0 || expert >= experts || seen[expert]++ != 0) return false;
  }
  return static_cast<int64_t>(order.size()) == experts;
}

void plan_exchange(Communicator& ep, const ExpertPlacement& placement, const at::Tensor& experts,
                   const at::Tensor& weights, ExchangeMode mode, ExchangePlan* plan,
                   ExchangeBuffers* buffers) {
  TORCH_CHECK(
      experts.dim() == 2 && experts.sizes() == weights.sizes() && placement.ranks == ep.size(),
      "plan_exchange: experts ", experts.sizes(), ", weights ", weights.sizes(), " on ", ep.size(),
      " ranks");
  const int64_t own = ep.rank();
  std::vector<WirePair> pairs = plan_sending(placement, own, experts, weights, mode, plan);
  set_own_apart(own, plan);
  plan->receive_pairs.assign(ep.size(), 0);
  if (ep.size() > 1) {
    at::Tensor received;
    {
      const Waiting waiting(&buffers->counters);
      received = ep.all_to_all_uncounted(wire_view(pairs).slice(0, plan->own_pairs),
                                         plan->send_pairs, &plan->receive_pairs);
    }
    count_bytes(sum(plan->send_pairs), sizeof(WirePair), &buffers->counters);
    const auto* begin = reinterpret_cast<const WirePair*>(received.const_data_ptr<int32_t>());
    pairs.resize(plan->own_pairs);
    pairs.insert(pairs.end(), begin, begin + received.size(0));
  }
  plan_receiving(pairs, placement.count(own), plan);
  buffers->counters.pairs += static_cast<double>(plan->pairs);
}

void RowsInFlight::wait() {
  if (pending == nullptr) return;
  const Waiting waiting(counters);
  pending->wait();
  pending.reset();
}

RowsInFlight send_rows(Communicator& ep, const ExchangePlan& plan, const at::Tensor& tokens,
                       at::Tensor* arrived, ExchangeBuffers* buffers) {
  const int64_t D = tokens.size(1);
  shape_buffer(arrived, {plan.arrived_rows(), D}, tokens.scalar_type());
  if (ep.size() == 1) return {nullptr, nullptr};
  const int64_t travelling = sum(plan.send_rows);
  shape_buffer(&buffers->sent, {travelling, D}, tokens.scalar_type());
  gather_rows(plan.token_of_sent_row.data() + plan.own_rows, travelling, tokens, buffers->sent);
  count_bytes(travelling * D, tokens.element_size(), &buffers->counters);
  return {ep.all_to_all_async(*arrived, plan.receive_rows, buffers->sent, plan.send_rows),
          &buffers->counters};
}

RowsInFlight return_rows(Communicator& ep, const ExchangePlan& plan, const at::Tensor& rows,
                         ExchangeBuffers* buffers) {
  if (ep.size() == 1) return {nullptr, nullptr};
  const int64_t D = rows.size(1);
  shape_buffer(&buffers->returned, {sum(plan.send_rows), D}, rows.scalar_type());
  count_bytes(plan.arrived_rows() * D, rows.element_size(), &buffers->counters);
  return {ep.all_to_all_async(buffers->returned, plan.send_rows, rows, plan.receive_rows),
          &buffers->counters};
}

void add_returned(const ExchangePlan& plan, const at::Tensor& tokens,
                  const ExchangeBuffers& buffers) {
  if (plan.send_rows.size() == 1) return;
  if (buffers.returned.scalar_type() == at::kBFloat16) {
    add_returned_of<c10::BFloat16>(plan, buffers.returned, tokens);
  } else {
    add_returned_of<float>(plan, buffers.returned, tokens);
  }
}

void return_pairs(Communicator& ep, const ExchangePlan& plan, const at::Tensor& values,
                  const at::Tensor& slots, ExchangeBuffers* buffers) {
  const auto* sorted = values.const_data_ptr<float>();
  auto* to = slots.mutable_data_ptr<float>();
  std::vector<float> travelling(plan.pairs - plan.own_pairs);  // in order of arrival
  for (int64_t i = 0; i < plan.pairs; ++i) {
    const int64_t arrival = plan.arrival_of_pair[i];
    if (arrival < plan.own_pairs) {
      to[plan.slot_of_sent_pair[arrival]] = sorted[i];
    } else {
      travelling[arrival - plan.own_pairs] = sorted[i];
    }
  }
  if (ep.size() == 1) return;
  std::vector<float> returned(plan.slot_of_sent_pair.size() - plan.own_pairs);
  const auto column = [](std::vector<float>& numbers) {
    return at::from_blob(numbers.data(), {static_cast<int64_t>(numbers.size()), 1}, at::kFloat);
  };
  {
    const Waiting waiting(&buffers->counters);
    ep.all_to_all(column(returned), plan.send_pairs, column(travelling), plan.receive_pairs);
  }
  count_bytes(plan.pairs - plan.own_pairs, sizeof(float), &buffers->counters);
  for (size_t i = 0; i < returned.size(); ++i) {
    to[plan.slot_of_sent_pair[plan.own_pairs + i]] = returned[i];
  }
}

}  // namespace emo

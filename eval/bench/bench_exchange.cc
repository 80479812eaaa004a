#include "eval/bench/bench_exchange.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <random>

#include "absl/strings/str_cat.h"
#include "eval/bench/median.h"
#include "eval/open/pool_option.h"
#include "model/host/router.h"
#include "model/pool_sizes.h"
#include "parallel/expert_exchange.h"

namespace emo {
namespace {

using Clock = std::chrono::steady_clock;

absl::Status check(const ExchangeBenchOptions& o, int64_t ranks) {
  if (o.tokens >= 1 && o.width >= 1 && o.top_k >= 1 && o.top_k <= o.experts && o.experts >= ranks &&
      o.document_length >= 1 && o.repeats >= 1) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("tokens, width, document length and repeats must be at least 1, top_k ", o.top_k,
                   " at most the experts, ", o.experts, ", and these at least the ranks, ", ranks));
}

// This rank's tokens through a router with pools of this kind.
Routing route_documents(const ExchangeBenchOptions& o, const PoolPolicy& pool, int64_t rank) {
  std::mt19937_64 random(o.seed * 1000003 + static_cast<uint64_t>(rank));
  std::normal_distribution<float> normal(0, 1);
  at::Tensor logits = at::empty({o.tokens, o.experts});
  auto* z = logits.mutable_data_ptr<float>();
  std::vector<int32_t> ends = {0};
  std::vector<float> of_document(o.experts);
  for (int64_t t = 0; t < o.tokens; ++t) {
    if (t % o.document_length == 0) {
      for (float& preference : of_document) preference = normal(random);
    }
    for (int64_t e = 0; e < o.experts; ++e) z[t * o.experts + e] = of_document[e] + normal(random);
    if ((t + 1) % o.document_length == 0 || t + 1 == o.tokens) {
      ends.push_back(static_cast<int32_t>(t + 1));
    }
  }
  const auto documents = static_cast<int64_t>(ends.size()) - 1;
  const RoutingContract contract;
  const at::Tensor sequence = at::full({documents}, rank, at::kLong);
  at::Tensor ordinal = at::empty({documents}, at::kInt);
  std::iota(ordinal.mutable_data_ptr<int32_t>(), ordinal.mutable_data_ptr<int32_t>() + documents,
            0);
  const at::Tensor span_ends =
      at::from_blob(ends.data(), {documents + 1}, at::TensorOptions().dtype(at::kInt));
  const std::vector<int64_t> sizes =
      draw_pool_sizes(pool, contract.pool_draw, o.seed, sequence, ordinal, /*layer=*/0, o.experts);
  const RouterInput input{logits,
                          make_spans(span_ends, logits.size(0), at::kCPU),
                          tensor_of(std::vector<int32_t>(sizes.begin(), sizes.end())),
                          pool,
                          o.top_k,
                          {}};
  Routing routing;
  route(input, contract, &routing);
  return routing;
}

// Seconds of `work` on the slowest rank. Collective.
template <typename F>
double time_of(Communicator& world, const F& work) {
  world.barrier();
  const Clock::time_point begin = Clock::now();
  work();
  double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  world.all_reduce(at::from_blob(&seconds, {1}, at::kDouble), ReduceOp::kMax);
  return seconds;
}

// Rows to other ranks, summed over all ranks.
double remote_rows(Communicator& world, const ExchangePlan& plan) {
  double rows = 0;
  for (const int64_t count : plan.send_rows) rows += static_cast<double>(count);
  world.all_reduce(at::from_blob(&rows, {1}, at::kDouble), ReduceOp::kSum);
  return rows;
}

double max_over_mean(Communicator& world, double here) {
  double most = here;
  world.all_reduce(at::from_blob(&most, {1}, at::kDouble), ReduceOp::kMax);
  world.all_reduce(at::from_blob(&here, {1}, at::kDouble), ReduceOp::kSum);
  return most / (here / static_cast<double>(world.size()));
}

// What each rank says, by rank.
std::vector<double> of_ranks(Communicator& world, double here) {
  std::vector<double> values(world.size(), 0);
  values[world.rank()] = here;
  world.all_reduce(at::from_blob(values.data(), {static_cast<int64_t>(values.size())}, at::kDouble),
                   ReduceOp::kSum);
  return values;
}

// Counts with this rank's own rows among them, as a bare all-to-all moves them.
std::vector<int64_t> with_own(std::vector<int64_t> rows, int64_t own, int64_t own_rows) {
  rows[own] = own_rows;
  return rows;
}

// Rows to experts' ranks and back, as one rank does them, by a plan for either mode.
class Travel {
 public:
  Travel(Communicator& world, const ExchangeBenchOptions& o, const Routing& routing)
      : world_(world),
        routing_(routing),
        placement_{o.experts, world.size()},
        tokens_(at::ones({o.tokens, o.width})),
        results_(at::zeros({o.tokens, o.width})) {
    plan(ExchangeMode::kOncePerRank, &once_);
    plan(ExchangeMode::kOncePerExpert, &naive_);
    packed_ = at::ones({static_cast<int64_t>(once_.token_of_sent_row.size()), o.width});
    arrived_ = at::empty({once_.rows, o.width});
    there_ = with_own(once_.send_rows, world.rank(), once_.own_rows);
    back_ = with_own(once_.receive_rows, world.rank(), once_.own_rows);
  }

  const ExchangePlan& once() const { return once_; }
  const ExchangePlan& naive() const { return naive_; }
  double waited() const { return buffers_.counters.waited; }

  void plan_again() { plan(ExchangeMode::kOncePerRank, &once_); }
  void there_and_back(const ExchangePlan& plan) {
    send_rows(world_, plan, tokens_, &memory_, &buffers_).wait();
    return_rows(world_, plan, memory_, &buffers_).wait();
    add_returned(plan, results_, buffers_);
  }
  // The same rows, packed already, as a bare all-to-all moves them: own ones too, or without.
  void bare() { all_to_all_both_ways(packed_, there_, arrived_, back_); }
  void bare_travelling() {
    all_to_all_both_ways(packed_.slice(0, once_.own_rows), once_.send_rows,
                         arrived_.slice(0, once_.own_rows), once_.receive_rows);
  }

 private:
  void plan(ExchangeMode mode, ExchangePlan* made) {
    plan_exchange(world_, placement_, routing_.experts, routing_.weights, mode, made, &buffers_);
  }
  void all_to_all_both_ways(const at::Tensor& from, const std::vector<int64_t>& from_rows,
                            const at::Tensor& to, const std::vector<int64_t>& to_rows) {
    world_.all_to_all(to, to_rows, from, from_rows);
    world_.all_to_all(from, from_rows, to, to_rows);
  }

  Communicator& world_;
  const Routing& routing_;
  ExpertPlacement placement_;
  ExchangePlan once_, naive_;
  ExchangeBuffers buffers_;
  at::Tensor tokens_, results_, memory_, packed_, arrived_;
  std::vector<int64_t> there_, back_;  // rows that a bare all-to-all moves, own ones among them
};

// Seconds of each repeat.
struct TravelTimes {
  std::vector<double> seconds, waited, plan, naive, bare, over_bare, bare_travelling,
      over_bare_travelling;
};

// Collective.
TravelTimes time_travel(Communicator& world, int64_t repeats, Travel* travel) {
  TravelTimes times;
  for (int64_t repeat = -1; repeat < repeats; ++repeat) {  // the first only touches memory
    const double waited_before = travel->waited();
    const double with_packing = time_of(world, [&] { travel->there_and_back(travel->once()); });
    const double waited_here = travel->waited() - waited_before;
    const double bare = time_of(world, [&] { travel->bare(); });
    const double bare_travelling = time_of(world, [&] { travel->bare_travelling(); });
    const double one_per_expert = time_of(world, [&] { travel->there_and_back(travel->naive()); });
    const double planning = time_of(world, [&] { travel->plan_again(); });
    if (repeat < 0) continue;
    times.plan.push_back(planning);
    times.seconds.push_back(with_packing);
    times.waited.push_back(waited_here);
    times.bare.push_back(bare);
    times.over_bare.push_back(with_packing / bare);  // in pairs: a busy neighbour meets both
    times.bare_travelling.push_back(bare_travelling);
    times.over_bare_travelling.push_back(with_packing / bare_travelling);
    times.naive.push_back(one_per_expert);
  }
  return times;
}

OrderedJson measure(Communicator& world, const ExchangeBenchOptions& o, const PoolPolicy& pool) {
  const Routing routing = route_documents(o, pool, world.rank());
  Travel travel(world, o, routing);
  const TravelTimes times = time_travel(world, o.repeats, &travel);
  const double all_tokens = static_cast<double>(o.tokens * world.size());
  const double copies = remote_rows(world, travel.once()) / all_tokens;
  const double naive_copies = remote_rows(world, travel.naive()) / all_tokens;
  const auto row_bytes = static_cast<double>(2 * o.width) * sizeof(float);
  return OrderedJson{
      {"copies_per_token", copies},
      {"naive_copies_per_token", naive_copies},
      {"bytes_per_token", copies * row_bytes},
      {"naive_bytes_per_token", naive_copies * row_bytes},
      {"seconds", median(times.seconds)},
      {"wait_seconds", of_ranks(world, median(times.waited))},
      {"plan_seconds", median(times.plan)},
      {"naive_seconds", median(times.naive)},
      {"bare_seconds", median(times.bare)},
      {"over_bare", median(times.over_bare)},
      {"bare_travelling_seconds", median(times.bare_travelling)},
      {"over_bare_travelling", median(times.over_bare_travelling)},
      {"rows_max_over_mean", max_over_mean(world, static_cast<double>(travel.once().rows))}};
}

}  // namespace

absl::StatusOr<OrderedJson> bench_exchange(const Mesh& mesh, const ExchangeBenchOptions& options) {
  absl::Status status = check(options, mesh.world->size());
  if (!status.ok()) return status;
  OrderedJson pools = OrderedJson::object();
  for (const std::string& text : options.pools) {
    const absl::StatusOr<PoolPolicy> pool = parse_pool(text, options.top_k);
    if (!pool.ok()) return pool.status();
    pools[text] = measure(*mesh.world, options, *pool);
  }
  return OrderedJson{{"ranks", mesh.world->size()}, {"tokens_per_rank", options.tokens},
                     {"width", options.width},      {"experts", options.experts},
                     {"top_k", options.top_k},      {"pools", pools}};
}

}  // namespace emo

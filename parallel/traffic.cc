#include "parallel/traffic.h"

#include <ATen/ops/from_blob.h>

namespace emo {
namespace {

at::Tensor view(std::vector<double>& numbers) {
  return at::from_blob(numbers.data(), {static_cast<int64_t>(numbers.size())}, at::kDouble);
}

}  // namespace

std::vector<ExchangeTraffic> reduce_traffic(Communicator& world,
                                            const std::vector<ExchangeCounters>& here) {
  std::vector<double> sums, largest;
  for (const ExchangeCounters& c : here) {
    sums.insert(sums.end(), {c.bytes, c.pairs, c.waited});
    largest.insert(largest.end(), {c.pairs, c.waited});
  }
  world.all_reduce(view(sums), ReduceOp::kSum);
  world.all_reduce(view(largest), ReduceOp::kMax);
  const auto ranks = static_cast<double>(world.size());
  std::vector<ExchangeTraffic> traffic(here.size());
  for (size_t i = 0; i < here.size(); ++i) {
    traffic[i].bytes = sums[3 * i] / ranks;
    if (sums[3 * i + 1] > 0) {
      traffic[i].pairs_max_over_mean = largest[2 * i] / (sums[3 * i + 1] / ranks);
    }
    traffic[i].waited_mean = sums[3 * i + 2] / ranks;
    traffic[i].waited_max = largest[2 * i + 1];
  }
  return traffic;
}

std::vector<double> waited_by_rank(Communicator& world, const std::vector<ExchangeCounters>& here) {
  std::vector<double> mine(1), all(static_cast<size_t>(world.size()));
  for (const ExchangeCounters& c : here) mine[0] += c.waited;
  world.all_gather(view(all), view(mine));
  return all;
}

}  // namespace emo

#include "parallel/traffic.h"

#include <ATen/ops/from_blob.h>

namespace emo {

std::vector<std::vector<ExchangeCounters>> gather_counters(
    Communicator& world, const std::vector<ExchangeCounters>& here) {
  const size_t width = 3 * here.size();
  std::vector<double> mine, all(width * static_cast<size_t>(world.size()));
  for (const ExchangeCounters& c : here) mine.insert(mine.end(), {c.bytes, c.pairs, c.waited});
  const auto view = [](std::vector<double>& numbers) {
    return at::from_blob(numbers.data(), {static_cast<int64_t>(numbers.size())}, at::kDouble);
  };
  world.all_gather(view(all), view(mine));
  std::vector<std::vector<ExchangeCounters>> ranks(static_cast<size_t>(world.size()));
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    for (size_t i = 0; i < here.size(); ++i) {
      const double* c = all.data() + rank * width + 3 * i;
      ranks[rank].push_back({c[0], c[1], c[2]});
    }
  }
  return ranks;
}

}  // namespace emo

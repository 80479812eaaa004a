#include "data/order/order.h"

#include "data/order/random_bits.h"

namespace emo {
namespace {

constexpr int kRounds = 6;

}  // namespace

const std::vector<std::string>& order_names() {
  static const std::vector<std::string> names = {"ours", "sequential", "reference"};
  return names;
}

int64_t permuted(int64_t position, int64_t size, uint64_t key) {
  int half_bits = 1;
  while ((int64_t{1} << (2 * half_bits)) < size) ++half_bits;
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  auto x = static_cast<uint64_t>(position);
  do {
    uint64_t left = x >> half_bits;
    uint64_t right = x & mask;
    for (uint64_t round = 0; round < kRounds; ++round) {
      const uint64_t next = left ^ (random_bits(key, round, right) & mask);
      left = right;
      right = next;
    }
    x = left << half_bits | right;
  } while (x >= static_cast<uint64_t>(size));  // four tries at most, on average
  return static_cast<int64_t>(x);
}

int64_t chunk_at(int64_t index, int64_t num_chunks, Order order, uint64_t seed) {
  if (num_chunks == 0) return index;
  const int64_t epoch = index / num_chunks;
  const int64_t position = index % num_chunks;
  if (order == Order::kSequential) return position;
  return permuted(position, num_chunks, random_bits(seed, 0x0DE5, static_cast<uint64_t>(epoch)));
}

}  // namespace emo

#include "data/order/numpy_shuffle.h"

#include <array>
#include <cstddef>
#include <utility>

namespace emo {
namespace {

// SeedSequence of numpy (O'Neill's seed_seq, "Developing a seed_seq alternative"): a seed's 32-bit
// words, mixed into a pool of four, hashed into as many as are wanted.
class SeedSequence {
 public:
  explicit SeedSequence(uint64_t seed) {
    const std::array<uint32_t, 2> words = {static_cast<uint32_t>(seed),
                                           static_cast<uint32_t>(seed >> 32)};
    for (std::size_t i = 0; i < pool_.size(); ++i)
      pool_[i] = hashed(i < words.size() ? words[i] : 0);
    for (std::size_t from = 0; from < pool_.size(); ++from) {
      for (std::size_t to = 0; to < pool_.size(); ++to) {
        if (from != to) pool_[to] = mixed(pool_[to], hashed(pool_[from]));
      }
    }
  }
  std::array<uint64_t, 4> generate() const {
    std::array<uint64_t, 4> out{};
    uint32_t factor = 0x8b51f9dd;
    for (std::size_t i = 0; i < 2 * out.size(); ++i) {
      uint32_t word = pool_[i % pool_.size()] ^ factor;
      factor *= 0x58f38ded;
      word *= factor;
      word ^= word >> 16;
      out[i / 2] |= static_cast<uint64_t>(word) << (32 * (i % 2));
    }
    return out;
  }

 private:
  uint32_t hashed(uint32_t word) {
    word ^= factor_;
    factor_ *= 0x931e8875;
    word *= factor_;
    return word ^ word >> 16;
  }
  static uint32_t mixed(uint32_t a, uint32_t b) {
    const uint32_t word = 0xca01f9dd * a - 0x4973f715 * b;
    return word ^ word >> 16;
  }
  std::array<uint32_t, 4> pool_{};
  uint32_t factor_ = 0x43b0d7e5;
};

}  // namespace

Pcg64::Pcg64(uint64_t seed) : state_(0) {
  const std::array<uint64_t, 4> words = SeedSequence(seed).generate();
  increment_ = (static_cast<Wide>(words[2]) << 64 | words[3]) << 1 | 1;
  step();
  state_ += static_cast<Wide>(words[0]) << 64 | words[1];
  step();
}

void Pcg64::step() {
  constexpr Wide kMultiplier = static_cast<Wide>(2549297995355413924u) << 64 | 4865540595714422341u;
  state_ = state_ * kMultiplier + increment_;
}

uint64_t Pcg64::next64() {
  step();
  const uint64_t folded = static_cast<uint64_t>(state_ >> 64) ^ static_cast<uint64_t>(state_);
  const auto rotation = static_cast<unsigned>(state_ >> 122);
  return folded >> rotation | folded << ((64 - rotation) & 63);
}

uint32_t Pcg64::next32() {
  if (has_half_) {
    has_half_ = false;
    return half_;
  }
  const uint64_t both = next64();
  has_half_ = true;
  half_ = static_cast<uint32_t>(both >> 32);
  return static_cast<uint32_t>(both);
}

uint64_t Pcg64::interval(uint64_t most) {
  if (most == 0) return 0;
  uint64_t mask = most;
  for (const int shift : {1, 2, 4, 8, 16, 32}) mask |= mask >> shift;
  uint64_t drawn = 0;
  do {
    drawn = (most <= UINT32_MAX ? next32() : next64()) & mask;
  } while (drawn > most);
  return drawn;
}

void numpy_shuffle(uint64_t seed, int64_t size, uint32_t* values) {
  Pcg64 random(seed);
  for (int64_t i = size - 1; i > 0; --i) {
    std::swap(values[i], values[random.interval(static_cast<uint64_t>(i))]);
  }
}

}  // namespace emo

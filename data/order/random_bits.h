// Stateless random numbers for the data path: the value depends on its key alone, so every rank can
// compute every other's. (Pool sizes have a generator of their own, model/philox.h.)
#pragma once

#include <cstdint>

namespace emo {

// splitmix64's finaliser (Steele, Lea, Flood 2014).
inline uint64_t mix_bits(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

inline uint64_t random_bits(uint64_t seed, uint64_t a, uint64_t b) {
  return mix_bits(mix_bits(mix_bits(seed) ^ a) ^ b);
}

// Uniform in [0, bound), bound >= 1.
inline uint64_t random_below(uint64_t bits, uint64_t bound) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(bits) * bound) >> 64);
}

}  // namespace emo

// numpy's shuffle, number for number: Generator(PCG64(seed)).shuffle of a one-dimensional array,
// the order in which the reference trains (emo-facts 3.5).
#pragma once

#include <cstdint>

namespace emo {

// PCG64 (O'Neill 2014, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms
// for Random Number Generation"): the XSL RR 128/64 member, seeded as numpy's SeedSequence does.
class Pcg64 {
 public:
  explicit Pcg64(uint64_t seed);
  uint64_t next64();
  uint32_t next32();  // two of each next64(), the lower half first
  // Uniform in [0, most]: draws are masked, and drawn again where they are larger.
  uint64_t interval(uint64_t most);

 private:
  __extension__ using Wide = unsigned __int128;
  void step();
  Wide state_, increment_;
  bool has_half_ = false;
  uint32_t half_ = 0;
};

// Shuffles values [size] in place, from the last to the first.
void numpy_shuffle(uint64_t seed, int64_t size, uint32_t* values);

}  // namespace emo

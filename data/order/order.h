// The order in which chunks are trained on: a permutation that needs no memory and gives any
// position in O(1), so that resuming and other world sizes see the same global sequence.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace emo {

enum class Order {
  kOurs,        // every epoch another random permutation of all chunks
  kSequential,  // as they are stored
  kReference,   // as the reference's (reference_order.h)
};
const std::vector<std::string>& order_names();  // in the enum's order

// The image of `position` under a pseudo-random permutation of [0, size): a Feistel network over
// the next power of four with cycle walking (Black and Rogaway 2002, "Ciphers with arbitrary finite
// domains"). REQUIRES: 0 <= position < size.
int64_t permuted(int64_t position, int64_t size, uint64_t key);

// The chunk of sequence number `index` of the run, but for Order::kReference; epochs follow one
// another without a gap.
// `num_chunks` 0 means that chunks have no end. REQUIRES: 0 <= index, 0 <= num_chunks.
int64_t chunk_at(int64_t index, int64_t num_chunks, Order order, uint64_t seed);

}  // namespace emo

// Flat buffers that a group of ranks replicate, and how the ranks share the work on them.
//
// A buffer is cut into buckets (an embedding, a layer, a head); of each bucket every rank owns an
// equal part. Gradients are summed bucket by bucket while the backward pass runs, each rank
// receiving its own part (reduce-scatter); it keeps optimizer state for its parts alone and updates
// those; updated parts travel to all while the next forward pass runs (all-gather). This is ZeRO
// stage 1 (Rajbhandari et al. 2020, arXiv 1910.02054, section 5.1); with gradients in folded
// buckets it is stage 2.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "parallel/communicator.h"

namespace emo {

struct Bucket {
  int64_t begin = 0;  // floats from the start of the buffer
  int64_t size = 0;   // divisible by the number of ranks; may be 0
  bool operator==(const Bucket&) const = default;
};

struct Sharding {
  std::vector<Bucket> buckets;  // one behind the other; folded ones share memory
  int64_t ranks = 1;
  int64_t rank = 0;

  int64_t size() const;        // floats of the buffer
  int64_t owned_size() const;  // floats that a rank owns of all buckets, the same for all ranks
  int64_t part_size(size_t bucket) const { return buckets[bucket].size / ranks; }
  int64_t part_begin(size_t bucket) const;   // of this rank, in the buffer
  int64_t owned_begin(size_t bucket) const;  // of this rank, when its parts are stored side by side
  // In a buffer of either kind, which its size tells.
  int64_t begin_in(size_t bucket, const at::Tensor& buffer) const;
};

// The same buckets in less memory: the first and the last begin at the same place, and of those
// between every third one does, so that while one is filled two can be on their way.
Sharding fold(const Sharding& sharding);

// Whether two buckets share memory.
bool overlap(const Bucket& a, const Bucket& b);

// Collective over `group`. Starts to sum a bucket of `flat` [size()] over the ranks; after wait()
// this rank's part holds the sum and the others' parts what was there before.
std::unique_ptr<Pending> reduce_scatter_bucket(Communicator& group, const Sharding& sharding,
                                               size_t bucket, const at::Tensor& flat);

// Collective over `group`. Starts to copy every rank's part of a bucket of `flat` to all ranks.
std::unique_ptr<Pending> all_gather_bucket(Communicator& group, const Sharding& sharding,
                                           size_t bucket, const at::Tensor& flat);

// Collective over `group`: all buckets, to the end.
void all_gather_buckets(Communicator& group, const Sharding& sharding, const at::Tensor& flat);

// Transfers under way, several to a bucket.
class PendingBuckets {
 public:
  void add(size_t bucket, std::unique_ptr<Pending> transfer);
  void wait(size_t bucket);
  void wait_all();

 private:
  std::vector<std::vector<std::unique_ptr<Pending>>> transfers_;  // by bucket
};

// This rank's parts of `flat` [size()], side by side [owned_size()], and back into their places.
at::Tensor owned_parts(const Sharding& sharding, const at::Tensor& flat);
void put_owned_parts(const Sharding& sharding, const at::Tensor& owned, const at::Tensor& flat);

}  // namespace emo

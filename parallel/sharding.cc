#include "parallel/sharding.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <utility>

namespace emo {
namespace {

at::Tensor bucket_view(const Sharding& sharding, size_t bucket, const at::Tensor& flat) {
  TORCH_CHECK(flat.numel() == sharding.size(), "sharding of ", sharding.size(),
              " floats, a buffer of ", flat.sizes());
  const Bucket& b = sharding.buckets[bucket];
  return flat.slice(0, b.begin, b.begin + b.size);
}

at::Tensor part_view(const Sharding& sharding, size_t bucket, const at::Tensor& flat) {
  const int64_t begin = sharding.part_begin(bucket);
  return flat.slice(0, begin, begin + sharding.part_size(bucket));
}

at::Tensor owned_view(const Sharding& sharding, size_t bucket, const at::Tensor& owned) {
  const int64_t begin = sharding.owned_begin(bucket);
  return owned.slice(0, begin, begin + sharding.part_size(bucket));
}

// The same answer on all ranks of the group.
bool travels(const Sharding& sharding, size_t bucket) {
  return sharding.ranks > 1 && sharding.buckets[bucket].size > 0;
}

}  // namespace

int64_t Sharding::size() const {
  int64_t end = 0;
  for (const Bucket& bucket : buckets) end = std::max(end, bucket.begin + bucket.size);
  return end;
}

int64_t Sharding::owned_size() const { return owned_begin(buckets.size()); }

int64_t Sharding::part_begin(size_t bucket) const {
  return buckets[bucket].begin + rank * part_size(bucket);
}

int64_t Sharding::owned_begin(size_t bucket) const {
  int64_t begin = 0;
  for (size_t before = 0; before < bucket; ++before) begin += part_size(before);
  return begin;
}

int64_t Sharding::begin_in(size_t bucket, const at::Tensor& buffer) const {
  return buffer.numel() == size() ? part_begin(bucket) : owned_begin(bucket);
}

Sharding fold(const Sharding& sharding) {
  constexpr size_t kPlaces = 3;
  if (sharding.buckets.size() <= kPlaces) return sharding;
  Sharding folded = sharding;
  std::vector<Bucket>& buckets = folded.buckets;
  const size_t last = buckets.size() - 1;
  std::array<int64_t, kPlaces> size = {};
  for (size_t b = 1; b < last; ++b) {
    int64_t& place = size[(b - 1) % kPlaces];
    place = std::max(place, buckets[b].size);
  }
  buckets[0].begin = buckets[last].begin = 0;
  const int64_t ends = std::max(buckets[0].size, buckets[last].size);
  const std::array<int64_t, kPlaces> begin = {ends, ends + size[0], ends + size[0] + size[1]};
  for (size_t b = 1; b < last; ++b) buckets[b].begin = begin[(b - 1) % kPlaces];
  return folded;
}

bool overlap(const Bucket& a, const Bucket& b) {
  return a.begin < b.begin + b.size && b.begin < a.begin + a.size;
}

std::unique_ptr<Pending> reduce_scatter_bucket(Communicator& group, const Sharding& sharding,
                                               size_t bucket, const at::Tensor& flat) {
  if (!travels(sharding, bucket)) return std::make_unique<Done>();
  return group.reduce_scatter_async(part_view(sharding, bucket, flat),
                                    bucket_view(sharding, bucket, flat));
}

std::unique_ptr<Pending> all_gather_bucket(Communicator& group, const Sharding& sharding,
                                           size_t bucket, const at::Tensor& flat) {
  if (!travels(sharding, bucket)) return std::make_unique<Done>();
  return group.all_gather_async(bucket_view(sharding, bucket, flat),
                                part_view(sharding, bucket, flat));
}

void all_gather_buckets(Communicator& group, const Sharding& sharding, const at::Tensor& flat) {
  for (size_t bucket = 0; bucket < sharding.buckets.size(); ++bucket) {
    all_gather_bucket(group, sharding, bucket, flat)->wait();
  }
}

void PendingBuckets::add(size_t bucket, std::unique_ptr<Pending> transfer) {
  if (transfers_.size() <= bucket) transfers_.resize(bucket + 1);
  transfers_[bucket].push_back(std::move(transfer));
}

void PendingBuckets::wait(size_t bucket) {
  if (bucket >= transfers_.size()) return;
  for (const std::unique_ptr<Pending>& transfer : transfers_[bucket]) transfer->wait();
  transfers_[bucket].clear();
}

void PendingBuckets::wait_all() {
  for (size_t bucket = 0; bucket < transfers_.size(); ++bucket) wait(bucket);
}

at::Tensor owned_parts(const Sharding& sharding, const at::Tensor& flat) {
  at::Tensor owned = at::empty({sharding.owned_size()}, flat.options());
  for (size_t bucket = 0; bucket < sharding.buckets.size(); ++bucket) {
    owned_view(sharding, bucket, owned).copy_(part_view(sharding, bucket, flat));
  }
  return owned;
}

void put_owned_parts(const Sharding& sharding, const at::Tensor& owned, const at::Tensor& flat) {
  for (size_t bucket = 0; bucket < sharding.buckets.size(); ++bucket) {
    part_view(sharding, bucket, flat).copy_(owned_view(sharding, bucket, owned));
  }
}

}  // namespace emo

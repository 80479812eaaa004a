#include "parallel/sharding.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "parallel/traffic.h"
#include "tests/parallel/test_world.h"

namespace emo {
namespace {

// Three buckets, the middle one empty, in a buffer that this rank numbers in its own way.
class ShardingTest : public ::testing::Test {
 protected:
  ShardingTest() {
    const int64_t n = world_.size();
    sharding_.buckets = {{0, 4 * n}, {4 * n, 0}, {4 * n, 6 * n}};
    sharding_.ranks = n;
    sharding_.rank = world_.rank();
  }
  Communicator& world_ = test_world();
  Sharding sharding_;
};

TEST_F(ShardingTest, PartsOfAllRanksMakeTheWhole) {
  const at::Tensor whole = at::arange(sharding_.size(), at::kFloat);
  const at::Tensor owned = owned_parts(sharding_, whole);
  EXPECT_EQ(owned.numel(), sharding_.owned_size());
  EXPECT_EQ(owned[0].item<int64_t>(), 4 * world_.rank());
  EXPECT_EQ(owned[4].item<int64_t>(), 4 * world_.size() + 6 * world_.rank());
  at::Tensor again = at::zeros_like(whole);
  put_owned_parts(sharding_, owned, again);
  all_gather_buckets(world_, sharding_, again);
  EXPECT_TRUE(on_all_ranks(at::equal(again, whole)));
}

TEST_F(ShardingTest, SeveralBucketsTravelAtOnce) {
  const auto ranks = static_cast<float>(world_.size());
  const at::Tensor whole = at::arange(sharding_.size(), at::kFloat);
  at::Tensor flat = whole + static_cast<float>(world_.rank());
  PendingBuckets pending;
  for (const size_t bucket : {2, 1, 0}) {
    pending.add(bucket, reduce_scatter_bucket(world_, sharding_, bucket, flat));
  }
  at::Tensor other = at::ones({5});
  world_.all_reduce(other, ReduceOp::kSum);
  pending.wait(0);
  pending.wait(0);  // again: nothing to wait for
  pending.wait_all();
  const at::Tensor sums = whole * ranks + ranks * (ranks - 1) / 2;
  EXPECT_TRUE(on_all_ranks(at::equal(owned_parts(sharding_, flat), owned_parts(sharding_, sums))));
  all_gather_buckets(world_, sharding_, flat);
  EXPECT_TRUE(on_all_ranks(at::equal(flat, sums) && at::equal(other, at::full({5}, ranks))));
}

TEST_F(ShardingTest, CountersOfEveryRankReachAll) {
  const auto rank = static_cast<double>(world_.rank());
  const auto all = gather_counters(world_, {{1, rank, 0.5}, {2 * rank, 3, 0}});
  bool right = static_cast<int64_t>(all.size()) == world_.size();
  for (size_t r = 0; r < all.size() && right; ++r) {
    const auto number = static_cast<double>(r);
    right = all[r].size() == 2 && all[r][0].bytes == 1 && all[r][0].pairs == number &&
            all[r][0].waited == 0.5 && all[r][1].bytes == 2 * number && all[r][1].pairs == 3;
  }
  EXPECT_TRUE(on_all_ranks(right));
}

}  // namespace
}  // namespace emo

// What the NCCL communicator does beyond the conformance suite: streams, types, where tensors may
// be.
#include "parallel/nccl_communicator.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/parallel/test_world.h"

namespace emo {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

class NcclCommunicatorTest : public ::testing::Test {
 protected:
  Communicator& world_ = test_world();
  const int64_t rank_ = world_.rank();
  const int64_t size_ = world_.size();
};

TEST_F(NcclCommunicatorTest, ReducesTheTypesThatMpiLacks) {
  for (const at::ScalarType type : {at::kBFloat16, at::kByte}) {
    at::Tensor sum = at::full({9}, rank_ + 1, type);
    world_.all_reduce(sum, ReduceOp::kSum);
    at::Tensor largest = at::full({9}, rank_ + 1, type);
    world_.all_reduce(largest, ReduceOp::kMax);
    EXPECT_TRUE(on_all_ranks(at::equal(sum, at::full({9}, size_ * (size_ + 1) / 2, type)) &&
                             at::equal(largest, at::full({9}, size_, type))));
  }
}

// The stand-in runs an operation when the compute stream waits for it, and not before.
TEST_F(NcclCommunicatorTest, ResultsArriveWhenTheComputeStreamWaits) {
  at::Tensor sum = at::full({4}, rank_, at::kLong);
  const at::Tensor before = sum.clone();
  const auto pending = world_.all_reduce_async(sum, ReduceOp::kSum);
  EXPECT_TRUE(at::equal(sum, before));
  pending->wait();
  EXPECT_TRUE(on_all_ranks(at::equal(sum, at::full({4}, size_ * (size_ - 1) / 2, at::kLong))));
  pending->wait();  // nothing more to wait for
}

TEST_F(NcclCommunicatorTest, DestroyingAnUnfinishedOperationWaits) {
  at::Tensor sum = at::full({4}, rank_, at::kLong);
  world_.all_reduce_async(sum, ReduceOp::kSum).reset();
  EXPECT_TRUE(on_all_ranks(at::equal(sum, at::full({4}, size_ * (size_ - 1) / 2, at::kLong))));
}

TEST_F(NcclCommunicatorTest, AnOperationOutlivesItsCommunicator) {
  at::Tensor sum = at::full({4}, rank_, at::kLong);
  auto part = world_.split(0, rank_);
  const auto pending = part->all_reduce_async(sum, ReduceOp::kSum);
  part.reset();
  pending->wait();
  EXPECT_TRUE(on_all_ranks(at::equal(sum, at::full({4}, size_ * (size_ - 1) / 2, at::kLong))));
}

TEST_F(NcclCommunicatorTest, OperationsOfSeveralCommunicatorsOverlap) {
  const auto pair = world_.split(rank_ / 2, rank_);
  at::Tensor all = at::ones({1000});
  at::Tensor some = at::ones({10});
  const auto outer = world_.all_reduce_async(all, ReduceOp::kSum);
  const auto inner = pair->all_reduce_async(some, ReduceOp::kSum);
  // Ranks may wait in different orders: the communication stream has one.
  if (rank_ % 2 == 0) outer->wait();
  inner->wait();
  outer->wait();
  EXPECT_TRUE(
      on_all_ranks(all.eq(size_).all().item<bool>() && some.eq(pair->size()).all().item<bool>()));
}

TEST_F(NcclCommunicatorTest, AnExchangeMayBeEmptyOnSomeRanksOrAll) {
  // Only the last rank sends, and only to the first.
  std::vector<int64_t> send_rows(size_, 0), receive_rows(size_, 0);
  if (rank_ == size_ - 1) send_rows[0] = 3;
  if (rank_ == 0) receive_rows[size_ - 1] = 3;
  const at::Tensor send = at::full({rank_ == size_ - 1 ? 3 : 0, 2}, 7, at::kInt);
  at::Tensor receive = at::zeros({rank_ == 0 ? 3 : 0, 2}, at::kInt);
  world_.all_to_all(receive, receive_rows, send, send_rows);
  EXPECT_TRUE(on_all_ranks(receive.eq(7).all().item<bool>()));
  const std::vector<int64_t> none(size_, 0);
  world_.all_to_all(at::zeros({0, 2}), none, at::zeros({0, 2}), none);
  world_.all_to_all(at::zeros({size_, 0}), std::vector<int64_t>(size_, 1), at::zeros({size_, 0}),
                    std::vector<int64_t>(size_, 1));
}

TEST_F(NcclCommunicatorTest, RefusesTensorsThatItCannotReach) {
  const at::Tensor nowhere = at::empty({size_, 2}, at::TensorOptions(at::kMeta));
  const at::Tensor striped = at::zeros({3, 2}).t();
  const std::vector<int64_t> rows(size_, 1);
  const auto refuses = [](const char* what) { return ThrowsMessage<c10::Error>(HasSubstr(what)); };
  EXPECT_THAT([&] { world_.all_reduce(nowhere, ReduceOp::kSum); },
              refuses("all_reduce: a tensor on meta"));
  EXPECT_THAT([&] { world_.broadcast(nowhere, 0); }, refuses("broadcast: a tensor on meta"));
  EXPECT_THAT([&] { world_.all_gather(nowhere, at::zeros({2})); },
              refuses("all_gather: from cpu to meta"));
  EXPECT_THAT([&] { world_.all_to_all(nowhere, rows, nowhere, rows); },
              refuses("all_to_all: a tensor on meta"));
  EXPECT_THAT([&] { world_.all_reduce(striped, ReduceOp::kSum); },
              refuses("all_reduce: needs a contiguous tensor"));
  EXPECT_THAT([&] { world_.all_reduce(at::zeros({2}, at::kHalf), ReduceOp::kSum); },
              refuses("NCCL has no type for Half"));
  EXPECT_THAT([&] { world_.broadcast(at::zeros({2}), size_); }, refuses("broadcast: root "));
  EXPECT_THAT([&] { nccl_communicator(world_.split(0, rank_), at::Device(at::kMeta), nullptr); },
              refuses("NCCL: needs one numbered GPU, not meta"));
  world_.barrier();
}

}  // namespace
}  // namespace emo

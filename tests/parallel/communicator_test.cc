// The conformance suite of Communicator: what its header promises, on any implementation and number
// of ranks. Inputs are whole numbers, so that results are exact and comparisons need no tolerance.
#include "parallel/communicator.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "parallel/agreement.h"
#include "parallel/mesh.h"
#include "tests/parallel/test_world.h"

namespace emo {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

class CommunicatorTest : public ::testing::Test {
 protected:
  // A kind of tensor where the communicator's collectives work.
  static at::TensorOptions on_device(at::ScalarType type) {
    return at::TensorOptions(test_device()).dtype(type);
  }

  Communicator& world_ = test_world();
  const int64_t rank_ = world_.rank();
  const int64_t size_ = world_.size();
};

TEST_F(CommunicatorTest, AllReduceSumsAndTakesTheLargestInEveryType) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kInt, at::kLong}) {
    for (const int64_t count : {0, 1, 7, 4099}) {
      const at::Tensor base = at::arange(count, on_device(type));
      at::Tensor sum = base + rank_;
      world_.all_reduce(sum, ReduceOp::kSum);
      at::Tensor largest = base * (rank_ + 1);
      world_.all_reduce(largest, ReduceOp::kMax);
      EXPECT_TRUE(on_all_ranks(at::equal(sum, base * size_ + size_ * (size_ - 1) / 2)));
      EXPECT_TRUE(on_all_ranks(at::equal(largest, base * size_)));
    }
  }
}

TEST_F(CommunicatorTest, AsynchronousReductionsOverlapAndEndInAnyOrder) {
  at::Tensor a = at::full({1000}, rank_ + 1, on_device(at::kFloat));
  at::Tensor b = at::full({3}, rank_, on_device(at::kLong));
  auto first = world_.all_reduce_async(a, ReduceOp::kSum);
  auto second = world_.all_reduce_async(b, ReduceOp::kMax);
  second->wait();
  first->wait();
  EXPECT_TRUE(
      on_all_ranks(at::equal(a, at::full({1000}, size_ * (size_ + 1) / 2, on_device(at::kFloat)))));
  EXPECT_TRUE(on_all_ranks(at::equal(b, at::full({3}, size_ - 1, on_device(at::kLong)))));
}

TEST_F(CommunicatorTest, BroadcastFromEveryRoot) {
  for (int64_t root = 0; root < size_; ++root) {
    at::Tensor values = at::full({5}, rank_, on_device(at::kDouble));
    world_.broadcast(values, root);
    EXPECT_TRUE(on_all_ranks(at::equal(values, at::full({5}, root, on_device(at::kDouble)))));
  }
}

TEST_F(CommunicatorTest, AllGatherKeepsTheOrderOfRanks) {
  const at::Tensor counting = at::arange(3, on_device(at::kFloat));
  const at::Tensor mine = counting + 10.0f * static_cast<float>(rank_);
  at::Tensor all = at::zeros({size_, 3}, on_device(at::kFloat));
  world_.all_gather(all, mine);
  const at::Tensor expected =
      counting + 10 * at::arange(size_, on_device(at::kFloat)).view({-1, 1});
  EXPECT_TRUE(on_all_ranks(at::equal(all, expected)));
}

TEST_F(CommunicatorTest, ReduceScatterGivesEachRankItsPart) {
  const at::Tensor input =
      at::arange(4 * size_, on_device(at::kFloat)) * static_cast<float>(rank_ + 1);
  at::Tensor part = at::zeros({4}, on_device(at::kFloat));
  world_.reduce_scatter(part, input);
  const at::Tensor expected =
      (at::arange(4, on_device(at::kFloat)) + static_cast<float>(4 * rank_)) *
      static_cast<float>(size_ * (size_ + 1) / 2);
  EXPECT_TRUE(on_all_ranks(at::equal(part, expected)));
}

TEST_F(CommunicatorTest, ReduceScatterAndAllGatherWorkInPlace) {
  const at::Tensor counting = at::arange(4 * size_, on_device(at::kFloat));
  const at::Tensor mine = counting + static_cast<float>(100 * rank_);
  at::Tensor values = mine.clone();
  const at::Tensor part = values.slice(0, 4 * rank_, 4 * rank_ + 4);
  const auto pending = world_.reduce_scatter_async(part, values);
  pending->wait();
  const auto ranks = static_cast<float>(size_);
  const at::Tensor sums = counting * ranks + 50 * ranks * (ranks - 1);
  at::Tensor expected = mine.clone();
  expected.slice(0, 4 * rank_, 4 * rank_ + 4).copy_(sums.slice(0, 4 * rank_, 4 * rank_ + 4));
  EXPECT_TRUE(on_all_ranks(at::equal(values, expected)));
  world_.all_gather_async(values, part)->wait();
  EXPECT_TRUE(on_all_ranks(at::equal(values, sums)));
}

TEST_F(CommunicatorTest, AllToAllMovesUnevenRows) {
  // Rank r sends (r + 2 s) % 4 rows to rank s; a row tells who sent it, to whom, and its number.
  const auto count = [](int64_t from, int64_t to) { return (from + 2 * to) % 4; };
  std::vector<int64_t> send_rows, receive_rows;
  std::vector<at::Tensor> rows, expected;
  for (int64_t peer = 0; peer < size_; ++peer) {
    send_rows.push_back(count(rank_, peer));
    receive_rows.push_back(count(peer, rank_));
    for (int64_t i = 0; i < count(rank_, peer); ++i)
      rows.push_back(at::tensor(std::vector<float>{float(rank_), float(peer), float(i)}));
    for (int64_t i = 0; i < count(peer, rank_); ++i)
      expected.push_back(at::tensor(std::vector<float>{float(peer), float(rank_), float(i)}));
  }
  const auto stack = [](const std::vector<at::Tensor>& list) {
    return list.empty() ? at::empty({0, 3}) : at::stack(list);
  };
  at::Tensor received =
      at::zeros({static_cast<int64_t>(expected.size()), 3}, on_device(at::kFloat));
  world_.all_to_all_async(received, receive_rows, stack(rows).to(test_device()), send_rows)->wait();
  EXPECT_TRUE(on_all_ranks(at::equal(received, stack(expected).to(test_device()))));

  std::vector<int64_t> counted;
  const at::Tensor uncounted = world_.all_to_all_uncounted(stack(rows), send_rows, &counted);
  EXPECT_TRUE(on_all_ranks(at::equal(uncounted, stack(expected)) && counted == receive_rows));
}

TEST_F(CommunicatorTest, AllToAllMovesBf16) {
  // Rank r sends r + 1 rows to each; an odd number of 2-byte columns.
  std::vector<int64_t> receive_rows;
  std::vector<at::Tensor> expected;
  for (int64_t peer = 0; peer < size_; ++peer) {
    receive_rows.push_back(peer + 1);
    expected.push_back(at::full({peer + 1, 3}, peer + 0.5));
  }
  const at::Tensor wanted = at::cat(expected).to(on_device(at::kBFloat16));
  const at::Tensor received = at::zeros_like(wanted);
  const at::Tensor sent = at::full({size_ * (rank_ + 1), 3}, rank_ + 0.5, on_device(at::kBFloat16));
  world_.all_to_all(received, receive_rows, sent, std::vector<int64_t>(size_, rank_ + 1));
  EXPECT_TRUE(on_all_ranks(at::equal(received, wanted)));
}

TEST_F(CommunicatorTest, UncountedExchangesMayFollowEachOther) {
  for (int64_t round = 0; round < 20; ++round) {  // sizes below and above eager messages
    const int64_t n = round % 3 == 0 ? 5000 * round : round;
    std::vector<int64_t> counted;
    const at::Tensor received =
        world_.all_to_all_uncounted(at::full({n * size_, 2}, rank_ + round, at::kLong),
                                    std::vector<int64_t>(size_, n), &counted);
    const at::Tensor expected = at::arange(size_, at::kLong).add(round).view({-1, 1, 1});
    EXPECT_TRUE(on_all_ranks(counted == std::vector<int64_t>(size_, n) &&
                             received.view({size_, n, 2}).eq(expected).all().item<bool>()));
  }
}

// One rank alone does without the operation's name.
auto refuses(const char* operation) {
  return ThrowsMessage<c10::Error>(AnyOf(HasSubstr(operation), HasSubstr("one rank: ")));
}

TEST_F(CommunicatorTest, WrongSizesAreRefusedBeforeAnythingTravels) {
  const at::TensorOptions floats = on_device(at::kFloat);
  const at::Tensor five = at::zeros({5, 2}, floats);
  const std::vector<int64_t> one(size_, 1), nine(size_, 9);
  EXPECT_THAT([&] { world_.all_to_all(five, one, five, nine); }, refuses("all_to_all: "));
  EXPECT_THAT(
      [&] { world_.all_gather(at::zeros({size_ * 5 + 1}, floats), at::zeros({5}, floats)); },
      refuses("all_gather: "));
  EXPECT_THAT(
      [&] { world_.reduce_scatter(at::zeros({5}, floats), at::zeros({size_ * 5 + 1}, floats)); },
      refuses("reduce_scatter: "));
  world_.barrier();
}

TEST_F(CommunicatorTest, SplitGroupsByColourAndOrdersByKey) {
  const auto part = world_.split(rank_ % 2, -rank_);
  const int64_t expected = (size_ + 1 - rank_ % 2) / 2;
  EXPECT_TRUE(on_all_ranks(part->size() == expected));
  at::Tensor sum = at::full({1}, rank_, on_device(at::kLong));
  part->all_reduce(sum, ReduceOp::kSum);
  int64_t wanted = 0;
  for (int64_t r = rank_ % 2; r < size_; r += 2) wanted += r;
  EXPECT_TRUE(on_all_ranks(sum.item<int64_t>() == wanted));
  EXPECT_TRUE(on_all_ranks(part->rank() == (size_ - 1 - rank_) / 2 || size_ % 2 == 1));
}

TEST_F(CommunicatorTest, MeshPutsExpertGroupsSideBySide) {
  for (int64_t ep = 1; ep <= size_; ep *= 2) {
    const auto mesh = make_mesh(world_.split(0, rank_), 0, ep);
    ASSERT_TRUE(on_all_ranks(mesh.ok()));
    EXPECT_TRUE(on_all_ranks(mesh->ep->rank() == rank_ % ep && mesh->dp->rank() == rank_ / ep &&
                             mesh->ep->size() == ep && mesh->dp->size() == size_ / ep));
  }
  EXPECT_FALSE(make_mesh(world_.split(0, rank_), 3, 5).ok());
}

TEST_F(CommunicatorTest, ErrorsOfOneRankReachAll) {
  const absl::Status mine =
      rank_ == size_ - 1 ? absl::DataLossError("only the last rank saw it") : absl::OkStatus();
  const absl::Status status = agree(world_, mine);
  EXPECT_TRUE(on_all_ranks(status == absl::DataLossError("only the last rank saw it")));
  EXPECT_TRUE(on_all_ranks(agree(world_, absl::OkStatus()).ok()));
  const std::vector<std::string> texts =
      gather_texts(world_, std::string(static_cast<size_t>(rank_), 'x'));
  bool right = static_cast<int64_t>(texts.size()) == size_;
  for (size_t r = 0; r < texts.size(); ++r) right = right && texts[r] == std::string(r, 'x');
  EXPECT_TRUE(on_all_ranks(right));
}

}  // namespace
}  // namespace emo

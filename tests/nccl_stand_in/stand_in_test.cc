// The stand-in sees each mistake that it is there to see. All mistakes here are answered with an
// error code on every rank, and the communicator works on.
#include <ATen/ops/from_blob.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>
#include <nccl.h>

#include <array>
#include <string>
#include <vector>

#include "tests/parallel/test_world.h"

namespace emo {
namespace {

class StandInTest : public ::testing::Test {
 protected:
  StandInTest() {
    cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking);
    comm_result_ = ncclCommInitRank(&comm_, size_, shared_id(), rank_);
  }
  ~StandInTest() override {
    EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
    EXPECT_EQ(ncclCommDestroy(comm_), ncclSuccess) << ncclGetLastError(comm_);
    EXPECT_EQ(cudaStreamDestroy(stream_), cudaSuccess);
  }
  StandInTest(const StandInTest&) = delete;
  StandInTest& operator=(const StandInTest&) = delete;

  // The first rank's id, on every rank.
  ncclUniqueId shared_id() {
    ncclUniqueId id = {};
    if (rank_ == 0) ncclGetUniqueId(&id);
    test_world().broadcast(at::from_blob(id.internal, {NCCL_UNIQUE_ID_BYTES}, at::kByte), 0);
    return id;
  }

  // Makes `stream` wait for all that the tests have computed.
  static void follow_compute(cudaStream_t stream) {
    cudaEvent_t event = nullptr;
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    cudaEventRecord(event, nullptr);
    cudaStreamWaitEvent(stream, event, 0);
    cudaEventDestroy(event);
  }

  ncclResult_t sum(size_t count, ncclDataType_t type = ncclFloat32, ncclRedOp_t op = ncclSum) {
    follow_compute(stream_);
    return ncclAllReduce(data_.data(), data_.data(), count, type, op, comm_, stream_);
  }

  // A difference between ranks is seen by all of them, if there are several.
  bool all_see_it(ncclResult_t result) const {
    return on_all_ranks(result == (size_ > 1 ? ncclInvalidUsage : ncclSuccess));
  }

  const int rank_ = static_cast<int>(test_world().rank());
  const int size_ = static_cast<int>(test_world().size());
  const bool last_ = rank_ == size_ - 1 && size_ > 1;
  const int next_ = (rank_ + 1) % size_;
  const int previous_ = (rank_ + size_ - 1) % size_;
  std::vector<double> data_ = std::vector<double>(64, 1.0);
  std::vector<double> other_ = std::vector<double>(64, 0.0);
  cudaStream_t stream_ = nullptr;
  ncclComm_t comm_ = nullptr;
  ncclResult_t comm_result_ = ncclSuccess;
};

TEST_F(StandInTest, ALazyStreamRunsWhenTheComputeStreamWaits) {
  ASSERT_EQ(comm_result_, ncclSuccess);
  data_[0] = 5.0;
  follow_compute(stream_);
  ASSERT_EQ(ncclAllReduce(data_.data(), other_.data(), 2, ncclFloat64, ncclSum, comm_, stream_),
            ncclSuccess);
  cudaEvent_t done = nullptr;
  cudaEventCreateWithFlags(&done, cudaEventDisableTiming);
  EXPECT_EQ(cudaEventRecord(done, stream_), cudaSuccess);
  EXPECT_TRUE(on_all_ranks(other_[0] == 0.0));
  EXPECT_EQ(cudaStreamWaitEvent(nullptr, done, 0), cudaSuccess);
  EXPECT_TRUE(on_all_ranks(other_[0] == 5.0 * size_ && other_[1] == size_ && other_[2] == 0.0));
  cudaEventDestroy(done);
}

TEST_F(StandInTest, RanksMustAgreeOnCountTypeReductionRootAndOperation) {
  EXPECT_TRUE(all_see_it(sum(last_ ? 3 : 4)));
  EXPECT_TRUE(all_see_it(sum(4, last_ ? ncclInt32 : ncclFloat32)));
  EXPECT_TRUE(all_see_it(sum(4, ncclFloat32, last_ ? ncclMax : ncclSum)));
  follow_compute(stream_);
  EXPECT_TRUE(all_see_it(
      ncclBroadcast(data_.data(), data_.data(), 4, ncclFloat32, last_ ? 1 : 0, comm_, stream_)));
  follow_compute(stream_);
  EXPECT_TRUE(all_see_it(
      last_ ? ncclBroadcast(data_.data(), data_.data(), 4, ncclFloat32, 0, comm_, stream_)
            : ncclAllReduce(data_.data(), data_.data(), 4, ncclFloat32, ncclSum, comm_, stream_)));
  if (size_ > 1) {
    const std::string error = ncclGetLastError(comm_);
    EXPECT_TRUE(on_all_ranks(error.find("rank " + std::to_string(rank_)) == 0 &&
                             error.find("ncclBroadcast(count 4") != std::string::npos));
  }
  EXPECT_TRUE(on_all_ranks(sum(4) == ncclSuccess));
}

TEST_F(StandInTest, EverySendNeedsItsReceive) {
  const int partner = rank_ + 1 < size_ || rank_ % 2 == 1 ? rank_ ^ 1 : rank_;
  const auto round = [&](size_t sent, size_t received, ncclDataType_t type) {
    follow_compute(stream_);
    ncclGroupStart();
    ncclSend(data_.data(), sent, ncclFloat32, partner, comm_, stream_);
    if (received > 0) ncclRecv(other_.data(), received, type, partner, comm_, stream_);
    return ncclGroupEnd();
  };
  EXPECT_TRUE(on_all_ranks(round(4, 5, ncclFloat32) == ncclInvalidUsage));
  EXPECT_TRUE(on_all_ranks(round(4, 4, ncclInt32) == ncclInvalidUsage));
  EXPECT_TRUE(on_all_ranks(round(4, 0, ncclFloat32) == ncclInvalidUsage));
  EXPECT_TRUE(on_all_ranks(round(4, 4, ncclFloat32) == ncclSuccess));
}

TEST_F(StandInTest, GroupsMustBalance) {
  EXPECT_EQ(ncclGroupEnd(), ncclInvalidUsage);
  cudaEvent_t event = nullptr;
  cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  follow_compute(stream_);
  ncclGroupStart();
  ncclGroupStart();
  EXPECT_EQ(ncclSend(data_.data(), 1, ncclFloat64, next_, comm_, stream_), ncclSuccess);
  EXPECT_EQ(ncclRecv(other_.data(), 1, ncclFloat64, previous_, comm_, stream_), ncclSuccess);
  EXPECT_EQ(ncclGroupEnd(), ncclSuccess);  // the inner one starts nothing
  EXPECT_EQ(cudaEventRecord(event, stream_), cudaErrorNotPermitted);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorNotPermitted);
  EXPECT_NE(std::string(cudaGetErrorString(cudaErrorNotPermitted)).find("inside a group"),
            std::string::npos);
  EXPECT_EQ(ncclCommDestroy(comm_), ncclInvalidUsage);
  EXPECT_TRUE(on_all_ranks(ncclGroupEnd() == ncclSuccess));
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_TRUE(on_all_ranks(other_[0] == 1.0));
  cudaEventDestroy(event);
}

TEST_F(StandInTest, AnErrorInsideAGroupEndsIt) {
  follow_compute(stream_);
  ncclGroupStart();
  ncclSend(data_.data(), 1, ncclFloat64, next_, comm_, stream_);
  EXPECT_EQ(ncclRecv(nullptr, 1, ncclFloat64, previous_, comm_, stream_), ncclInvalidArgument);
  EXPECT_EQ(ncclGroupEnd(), ncclInvalidArgument);
  EXPECT_TRUE(on_all_ranks(sum(4) == ncclSuccess));
}

TEST_F(StandInTest, AnOperationMustFollowTheComputeStream) {
  EXPECT_EQ(ncclAllReduce(data_.data(), data_.data(), 4, ncclFloat32, ncclSum, comm_, stream_),
            ncclInvalidUsage);
  EXPECT_TRUE(on_all_ranks(sum(4) == ncclSuccess));
  EXPECT_EQ(ncclAllReduce(data_.data(), data_.data(), 4, ncclFloat32, ncclSum, comm_, stream_),
            ncclInvalidUsage);
}

TEST_F(StandInTest, ACommunicatorKeepsToOneStream) {
  cudaStream_t another = nullptr;
  EXPECT_EQ(cudaStreamCreateWithFlags(&another, cudaStreamDefault), cudaErrorInvalidValue);
  ASSERT_EQ(cudaStreamCreateWithFlags(&another, cudaStreamNonBlocking), cudaSuccess);
  follow_compute(another);
  follow_compute(stream_);
  ncclGroupStart();
  ncclSend(data_.data(), 1, ncclFloat64, next_, comm_, stream_);
  ncclRecv(other_.data(), 1, ncclFloat64, previous_, comm_, another);
  EXPECT_EQ(ncclGroupEnd(), ncclInvalidUsage);
  EXPECT_TRUE(on_all_ranks(sum(4) == ncclSuccess));
  follow_compute(another);
  for (const cudaStream_t wrong : {another, cudaStream_t{nullptr}}) {
    EXPECT_EQ(ncclAllReduce(data_.data(), data_.data(), 4, ncclFloat32, ncclSum, comm_, wrong),
              ncclInvalidUsage);
  }
  EXPECT_EQ(cudaStreamDestroy(another), cudaSuccess);
}

TEST_F(StandInTest, BuffersOverlapOnlyAsNcclAllows) {
  double* data = data_.data();
  const auto sum_into = [&](double* to) {
    follow_compute(stream_);
    return ncclAllReduce(data, to, 4, ncclFloat64, ncclSum, comm_, stream_);
  };
  const auto gather_from = [&](const double* from) {
    follow_compute(stream_);
    return ncclAllGather(from, data, 2, ncclFloat64, comm_, stream_);
  };
  const auto scatter_to = [&](double* to) {
    follow_compute(stream_);
    return ncclReduceScatter(data, to, 2, ncclFloat64, ncclSum, comm_, stream_);
  };
  EXPECT_EQ(sum_into(data + 1), ncclInvalidArgument);
  EXPECT_EQ(gather_from(data + 2 * rank_ + 1), ncclInvalidArgument);
  EXPECT_EQ(scatter_to(data + 2 * rank_ + 1), ncclInvalidArgument);
  EXPECT_TRUE(on_all_ranks(gather_from(data + 2 * rank_) == ncclSuccess));
  EXPECT_TRUE(on_all_ranks(scatter_to(data + 2 * rank_) == ncclSuccess));
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_TRUE(on_all_ranks(data_[2 * rank_] == size_));
  follow_compute(stream_);
  ncclGroupStart();
  ncclSend(data, 4, ncclFloat64, next_, comm_, stream_);
  ncclRecv(data + 3, 4, ncclFloat64, previous_, comm_, stream_);
  EXPECT_EQ(ncclGroupEnd(), ncclInvalidUsage);
}

TEST_F(StandInTest, ArgumentsAreChecked) {
  float* data = reinterpret_cast<float*>(data_.data());
  follow_compute(stream_);
  EXPECT_EQ(ncclAllReduce(nullptr, data, 4, ncclFloat32, ncclSum, comm_, stream_),
            ncclInvalidArgument);
  EXPECT_EQ(ncclAllReduce(data, data, 4, ncclNumTypes, ncclSum, comm_, stream_),
            ncclInvalidArgument);
  EXPECT_EQ(ncclAllReduce(data, data, 4, ncclFloat32, ncclNumOps, comm_, stream_),
            ncclInvalidArgument);
  EXPECT_EQ(ncclBroadcast(data, data, 4, ncclFloat32, size_, comm_, stream_), ncclInvalidArgument);
  EXPECT_EQ(ncclSend(data, 4, ncclFloat32, -1, comm_, stream_), ncclInvalidArgument);
  EXPECT_EQ(ncclGetUniqueId(nullptr), ncclInvalidArgument);
  EXPECT_NE(cudaSetDevice(0), cudaSuccess);
}

TEST_F(StandInTest, IdsAndRanksMustFitTogether) {
  ncclComm_t comm = nullptr;
  const ncclUniqueId used = shared_id();
  // The last rank believes in a larger group, or in another rank's number.
  EXPECT_TRUE(on_all_ranks(ncclCommInitRank(&comm, size_ + (last_ ? 1 : 0), used, rank_) ==
                           (size_ > 1 ? ncclInvalidArgument : ncclSuccess)));
  if (size_ == 1) {
    EXPECT_EQ(ncclCommDestroy(comm), ncclSuccess);
  }
  EXPECT_EQ(ncclCommInitRank(&comm, size_, used, rank_), ncclInvalidArgument);
  if (size_ > 1) {
    const ncclUniqueId id = shared_id();
    EXPECT_TRUE(
        on_all_ranks(ncclCommInitRank(&comm, size_, id, last_ ? 0 : rank_) == ncclInvalidArgument));
  }
  EXPECT_EQ(ncclCommInitRank(&comm, size_, ncclUniqueId{}, rank_), ncclInvalidArgument);
  const ncclUniqueId unused = shared_id();
  EXPECT_EQ(ncclCommInitRank(&comm, size_, unused, size_), ncclInvalidArgument);
}

TEST_F(StandInTest, HandlesDieOnce) {
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;
  const ncclUniqueId id = shared_id();
  ASSERT_TRUE(on_all_ranks(ncclCommInitRank(&comm, size_, id, rank_) == ncclSuccess));
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(nullptr, event, 0), cudaErrorInvalidValue);  // never recorded
  follow_compute(stream);
  ASSERT_TRUE(on_all_ranks(ncclAllReduce(data_.data(), data_.data(), 4, ncclFloat64, ncclSum, comm,
                                         stream) == ncclSuccess));
  EXPECT_EQ(ncclCommDestroy(comm), ncclInvalidUsage);  // the operation has not run
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(ncclCommDestroy(comm), ncclSuccess);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
  EXPECT_EQ(ncclCommDestroy(comm), ncclInvalidArgument);
  EXPECT_EQ(ncclAllReduce(data_.data(), data_.data(), 4, ncclFloat64, ncclSum, comm, stream_),
            ncclInvalidArgument);
  EXPECT_EQ(ncclAllReduce(data_.data(), data_.data(), 4, ncclFloat64, ncclSum, comm_, stream),
            ncclInvalidUsage);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaEventDestroy(event), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaEventRecord(event, stream_), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaStreamWaitEvent(stream_, event, 0), cudaErrorInvalidResourceHandle);
}

// The last test in this file leaves work behind on a stream of its own.
TEST_F(StandInTest, AStreamMustNotBeDestroyedWithWorkInIt) {
  cudaStream_t stream = nullptr;
  ncclComm_t comm = nullptr;
  const ncclUniqueId id = shared_id();
  ASSERT_TRUE(on_all_ranks(ncclCommInitRank(&comm, size_, id, rank_) == ncclSuccess));
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  follow_compute(stream);
  ASSERT_TRUE(on_all_ranks(ncclAllReduce(data_.data(), data_.data(), 4, ncclFloat64, ncclSum, comm,
                                         stream) == ncclSuccess));
  EXPECT_EQ(cudaStreamDestroy(stream), cudaErrorNotReady);
  EXPECT_TRUE(on_all_ranks(data_[0] == 1.0));
}

}  // namespace
}  // namespace emo

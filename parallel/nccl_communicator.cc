#include "parallel/nccl_communicator.h"

#include <ATen/ops/from_blob.h>
#include <c10/util/Exception.h>
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <exception>
#include <memory>
#include <string>
#include <utility>

#include "parallel/mpi_communicator.h"

namespace emo {
namespace {

// Exit codes, data/program/exit_code.h: starting again helps where a peer was lost, not after our
// mistakes.
constexpr int kPeerLost = 69;
constexpr int kLocalFailure = 70;

ncclDataType_t nccl_type(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return ncclFloat32;
    case at::kDouble:
      return ncclFloat64;
    case at::kBFloat16:
      return ncclBfloat16;
    case at::kInt:
      return ncclInt32;
    case at::kLong:
      return ncclInt64;
    case at::kByte:
      return ncclUint8;
    default:
      TORCH_CHECK(false, "NCCL has no type for ", tensor.scalar_type());
  }
}

ncclRedOp_t nccl_op(ReduceOp op) { return op == ReduceOp::kSum ? ncclSum : ncclMax; }

// Ends the job where a CUDA call failed: the others would wait for this rank.
void check_cuda(cudaError_t result, int64_t rank, const char* operation) {
  if (result != cudaSuccess)
    abort_collective(rank, operation, cudaGetErrorString(result), kLocalFailure);
}

// A stream that does not wait for the default stream; only events order the two.
class Stream {
 public:
  explicit Stream(int64_t rank) {
    check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), rank,
               "creating a stream");
  }
  ~Stream() { cudaStreamDestroy(stream_); }  // CUDA ends what still runs, and nothing can be done
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

// A point in a stream that another stream can wait for. `rank` and `operation` name it in errors.
class Event {
 public:
  Event(int64_t rank, const char* operation) : rank_(rank), operation_(operation) {
    check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), rank_, operation_);
  }
  ~Event() { cudaEventDestroy(event_); }  // CUDA keeps it while a stream waits for it
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(cudaStream_t stream) const {
    check_cuda(cudaEventRecord(event_, stream), rank_, operation_);
  }
  void block(cudaStream_t stream) const {
    check_cuda(cudaStreamWaitEvent(stream, event_, 0), rank_, operation_);
  }

 private:
  cudaEvent_t event_ = nullptr;
  const int64_t rank_;
  const char* const operation_;
};

// Makes what `later` is given from now on wait for what `earlier` has been given.
void order_streams(cudaStream_t earlier, cudaStream_t later, int64_t rank, const char* operation) {
  const Event event(rank, operation);
  event.record(earlier);
  event.block(later);
}

// What was put on `stream` last; keeps its tensors alive until the compute stream waits for it.
// From then on memory that they give back is used again behind the operation.
class OnStream : public Pending {
 public:
  OnStream(cudaStream_t stream, cudaStream_t compute, std::vector<at::Tensor> tensors, int64_t rank,
           const char* operation)
      : done_(rank, operation), compute_(compute), tensors_(std::move(tensors)) {
    done_.record(stream);
  }
  ~OnStream() override {
    if (std::uncaught_exceptions() == 0) wait();  // else the job is about to be aborted
  }
  OnStream(const OnStream&) = delete;
  OnStream& operator=(const OnStream&) = delete;
  void wait() override {
    if (tensors_.empty()) return;
    done_.block(compute_);
    tensors_.clear();
  }

 private:
  const Event done_;
  const cudaStream_t compute_;
  std::vector<at::Tensor> tensors_;
};

class NcclCommunicator : public Communicator {
 public:
  // `job_rank`: this rank in the communicator that all others were split from, for errors.
  NcclCommunicator(std::unique_ptr<Communicator> host, at::Device device, cudaStream_t compute,
                   std::shared_ptr<const Stream> stream, int64_t job_rank)
      : host_(std::move(host)),
        device_(device),
        compute_(compute),
        stream_(std::move(stream)),
        job_rank_(job_rank) {
    constexpr const char* kOperation = "creating an NCCL communicator";
    ncclUniqueId id = {};
    if (rank() == 0) check_nccl(ncclGetUniqueId(&id), kOperation);
    host_->broadcast(at::from_blob(id.internal, {NCCL_UNIQUE_ID_BYTES}, at::kByte), 0);
    check_nccl(ncclCommInitRank(&comm_, static_cast<int>(size()), id, static_cast<int>(rank())),
               kOperation);
  }
  ~NcclCommunicator() override {
    // Both calls below wait for other ranks. While an exception unwinds this rank they are
    // elsewhere, and the job is about to be aborted.
    if (std::uncaught_exceptions() > 0) return;
    constexpr const char* kOperation = "destroying an NCCL communicator";
    check_cuda(cudaStreamSynchronize(stream_->get()), job_rank_, kOperation);
    check_nccl(ncclCommDestroy(comm_), kOperation);
  }
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  int64_t rank() const override { return host_->rank(); }
  int64_t size() const override { return host_->size(); }

  void barrier() override { host_->barrier(); }

  std::unique_ptr<Pending> all_reduce_async(const at::Tensor& tensor, ReduceOp op) override {
    if (!on_device(tensor, "all_reduce")) return host_->all_reduce_async(tensor, op);
    const ncclDataType_t type = nccl_type(tensor);
    if (tensor.numel() == 0) return std::make_unique<Done>();
    return start("all_reduce", {tensor}, [&] {
      return ncclAllReduce(tensor.data_ptr(), tensor.data_ptr(), tensor.numel(), type, nccl_op(op),
                           comm_, stream_->get());
    });
  }

  void broadcast(const at::Tensor& tensor, int64_t root) override {
    if (!on_device(tensor, "broadcast")) return host_->broadcast(tensor, root);
    TORCH_CHECK(root >= 0 && root < size(), "broadcast: root ", root, " of ", size(), " ranks");
    const ncclDataType_t type = nccl_type(tensor);
    if (tensor.numel() == 0) return;
    start("broadcast", {tensor}, [&] {
      return ncclBroadcast(tensor.data_ptr(), tensor.data_ptr(), tensor.numel(), type,
                           static_cast<int>(root), comm_, stream_->get());
    })->wait();
  }

  std::unique_ptr<Pending> all_gather_async(const at::Tensor& output,
                                            const at::Tensor& input) override {
    if (!both_on_device(output, input, "all_gather")) return host_->all_gather_async(output, input);
    TORCH_CHECK(
        output.numel() == input.numel() * size() && output.scalar_type() == input.scalar_type(),
        "all_gather: ", input.sizes(), " on ", size(), " ranks into ", output.sizes());
    const ncclDataType_t type = nccl_type(input);
    if (input.numel() == 0) return std::make_unique<Done>();
    return start("all_gather", {output, input}, [&] {
      return ncclAllGather(input.data_ptr(), output.data_ptr(), input.numel(), type, comm_,
                           stream_->get());
    });
  }

  std::unique_ptr<Pending> reduce_scatter_async(const at::Tensor& output,
                                                const at::Tensor& input) override {
    if (!both_on_device(output, input, "reduce_scatter"))
      return host_->reduce_scatter_async(output, input);
    TORCH_CHECK(
        input.numel() == output.numel() * size() && output.scalar_type() == input.scalar_type(),
        "reduce_scatter: ", input.sizes(), " on ", size(), " ranks into ", output.sizes());
    const ncclDataType_t type = nccl_type(input);
    if (output.numel() == 0) return std::make_unique<Done>();
    return start("reduce_scatter", {output, input}, [&] {
      return ncclReduceScatter(input.data_ptr(), output.data_ptr(), output.numel(), type, ncclSum,
                               comm_, stream_->get());
    });
  }

  std::unique_ptr<Pending> all_to_all_async(const at::Tensor& receive,
                                            const std::vector<int64_t>& receive_rows,
                                            const at::Tensor& send,
                                            const std::vector<int64_t>& send_rows) override {
    if (!both_on_device(receive, send, "all_to_all"))
      return host_->all_to_all_async(receive, receive_rows, send, send_rows);
    check_rows(receive, receive_rows);
    check_rows(send, send_rows);
    TORCH_CHECK(send.sizes().slice(1) == receive.sizes().slice(1) &&
                    send.scalar_type() == receive.scalar_type() &&
                    send_rows[rank()] == receive_rows[rank()],
                "all_to_all: rows of ", send.sizes(), ", ", send_rows[rank()],
                " of them to this rank, to rows of ", receive.sizes(), ", ", receive_rows[rank()],
                " of them from this rank");
    const ncclDataType_t type = nccl_type(send);
    return start("all_to_all", {receive, send},
                 [&] { return exchange(receive, receive_rows, send, send_rows, type); });
  }

  at::Tensor all_to_all_uncounted(const at::Tensor& send, const std::vector<int64_t>& send_rows,
                                  std::vector<int64_t>* receive_rows) override {
    return host_->all_to_all_uncounted(send, send_rows, receive_rows);
  }

  std::unique_ptr<Communicator> split(int64_t color, int64_t key) override {
    return std::make_unique<NcclCommunicator>(host_->split(color, key), device_, compute_, stream_,
                                              job_rank_);
  }

 private:
  // Whether NCCL serves this tensor; if not, the host communicator does.
  bool on_device(const at::Tensor& tensor, const char* operation) const {
    if (tensor.device() != device_) {
      TORCH_CHECK(tensor.is_cpu(), operation, ": a tensor on ", tensor.device(),
                  ", neither on this rank's ", device_, " nor in host memory");
      return false;
    }
    TORCH_CHECK(tensor.is_contiguous(), operation, ": needs a contiguous tensor");
    return true;
  }

  bool both_on_device(const at::Tensor& output, const at::Tensor& input,
                      const char* operation) const {
    TORCH_CHECK(output.device() == input.device(), operation, ": from ", input.device(), " to ",
                output.device());
    return on_device(output, operation) && on_device(input, operation);
  }

  void check_rows(const at::Tensor& tensor, const std::vector<int64_t>& rows) const {
    int64_t total = 0;
    for (const int64_t n : rows) {
      TORCH_CHECK(n >= 0, "all_to_all: ", n, " rows");
      total += n;
    }
    TORCH_CHECK(
        tensor.dim() > 0 && total == tensor.size(0) && static_cast<int64_t>(rows.size()) == size(),
        "all_to_all: ", total, " rows for ", rows.size(), " of ", size(), " ranks in ",
        tensor.sizes());
  }

  // Ends the job where an NCCL call failed: the others would wait for this rank.
  void check_nccl(ncclResult_t result, const char* operation) const {
    if (result == ncclSuccess) return;
    const std::string error =
        std::string(ncclGetErrorString(result)) + ": " + ncclGetLastError(comm_);
    const bool others = result == ncclRemoteError || result == ncclSystemError;
    abort_collective(job_rank_, operation, error.c_str(), others ? kPeerLost : kLocalFailure);
  }

  // Calls `launch`, which puts an operation on `tensors` on the communication stream, so that it
  // begins when the compute stream is done with them.
  template <typename Launch>
  std::unique_ptr<Pending> start(const char* operation, std::vector<at::Tensor> tensors,
                                 const Launch& launch) {
    order_streams(compute_, stream_->get(), job_rank_, operation);
    check_nccl(launch(), operation);
    return std::make_unique<OnStream>(stream_->get(), compute_, std::move(tensors), job_rank_,
                                      operation);
  }

  // One group, so that all messages travel at once; this rank's own rows are one of them.
  ncclResult_t exchange(const at::Tensor& receive, const std::vector<int64_t>& receive_rows,
                        const at::Tensor& send, const std::vector<int64_t>& send_rows,
                        ncclDataType_t type) {
    const int64_t row = elements_of_row(send);
    const auto* from = static_cast<const char*>(send.const_data_ptr());
    auto* to = static_cast<char*>(receive.mutable_data_ptr());
    ncclResult_t result = ncclGroupStart();
    for (int peer = 0; peer < size(); ++peer) {
      const int64_t sent = send_rows[peer] * row;
      const int64_t received = receive_rows[peer] * row;
      if (sent > 0 && result == ncclSuccess)
        result = ncclSend(from, sent, type, peer, comm_, stream_->get());
      if (received > 0 && result == ncclSuccess)
        result = ncclRecv(to, received, type, peer, comm_, stream_->get());
      from += sent * send.element_size();
      to += received * receive.element_size();
    }
    return result == ncclSuccess ? ncclGroupEnd() : result;
  }

  const std::unique_ptr<Communicator> host_;
  const at::Device device_;
  const cudaStream_t compute_;
  const std::shared_ptr<const Stream> stream_;  // of this and all that are split from it
  const int64_t job_rank_;
  ncclComm_t comm_ = nullptr;
};

}  // namespace

std::unique_ptr<Communicator> nccl_communicator(std::unique_ptr<Communicator> host,
                                                at::Device device, CUstream_st* compute) {
  TORCH_CHECK(device.is_cpu() || (device.is_cuda() && device.has_index()),
              "NCCL: needs one numbered GPU, not ", device);
  const int64_t rank = host->rank();
  if (device.is_cuda()) check_cuda(cudaSetDevice(device.index()), rank, "choosing a GPU");
  return std::make_unique<NcclCommunicator>(std::move(host), device, compute,
                                            std::make_shared<const Stream>(rank), rank);
}

}  // namespace emo

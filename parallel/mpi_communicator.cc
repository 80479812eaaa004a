#include "parallel/mpi_communicator.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <utility>

#include "parallel/parallel_for.h"
#include "parallel/self_communicator.h"

namespace emo {
namespace {

constexpr int kPeerLost = 69;  // exit code, data/program/exit_code.h
constexpr int kUncountedTag = 1;
constexpr int kPartTag = 2;
constexpr int64_t kLargest = 1 << 30;  // elements in one MPI call, whose counts are int

MPI_Datatype mpi_type(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return MPI_FLOAT;
    case at::kDouble:
      return MPI_DOUBLE;
    case at::kInt:
      return MPI_INT32_T;
    case at::kLong:
      return MPI_INT64_T;
    case at::kByte:
      return MPI_UINT8_T;
    case at::kBFloat16:
      return MPI_UINT16_T;  // moved, never added up: see check_sums
    default:
      TORCH_CHECK(false, "MPI has no type for ", tensor.scalar_type());
  }
}

MPI_Op mpi_op(ReduceOp op) { return op == ReduceOp::kSum ? MPI_SUM : MPI_MAX; }

void check_host(const at::Tensor& tensor, const char* operation) {
  TORCH_CHECK(tensor.is_contiguous() && tensor.is_cpu(), operation,
              ": needs a contiguous tensor in host memory");
}

void check_sums(const at::Tensor& tensor, const char* operation) {
  TORCH_CHECK(tensor.scalar_type() != at::kBFloat16, operation, ": MPI adds no bf16");
}

void check_mpi(int result, const char* operation) {
  if (result == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  int rank = -1;
  MPI_Error_string(result, text, &length);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  abort_collective(rank, operation, text, kPeerLost);
}

// One row of `rows`, so that counts, which are int, count rows. The caller frees it.
MPI_Datatype row_type(const at::Tensor& rows, const char* operation) {
  MPI_Datatype row = MPI_DATATYPE_NULL;
  check_mpi(MPI_Type_contiguous(static_cast<int>(elements_of_row(rows)), mpi_type(rows), &row),
            operation);
  check_mpi(MPI_Type_commit(&row), operation);
  return row;
}

class Request : public Pending {
 public:
  // Keeps `tensors` alive and frees `row` when done.
  Request(MPI_Request request, std::vector<at::Tensor> tensors, MPI_Datatype row)
      : request_(request), tensors_(std::move(tensors)), row_(row) {}
  ~Request() override {
    if (std::uncaught_exceptions() == 0) wait();  // else the job is about to be aborted
  }
  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;
  void wait() override {
    if (request_ != MPI_REQUEST_NULL) {
      check_mpi(MPI_Wait(&request_, MPI_STATUS_IGNORE), "waiting for a collective");
    }
    if (row_ != MPI_DATATYPE_NULL) MPI_Type_free(&row_);
    tensors_.clear();
  }

 private:
  MPI_Request request_;
  std::vector<at::Tensor> tensors_;
  MPI_Datatype row_;
};

class SeveralRequests : public Pending {
 public:
  explicit SeveralRequests(std::vector<std::unique_ptr<Pending>> parts)
      : parts_(std::move(parts)) {}
  void wait() override { parts_.clear(); }

 private:
  std::vector<std::unique_ptr<Pending>> parts_;
};

// Memory for what arrives, kept from one operation to the next: fresh memory of this size comes
// from the system page by page, which costs as much as the message.
class Arrivals {
 public:
  // At least so many elements: the smallest that fits, or new memory in place of the largest.
  at::Tensor take(int64_t elements, at::ScalarType type) {
    const auto smaller = [](const at::Tensor& a, const at::Tensor& b) {
      return a.numel() < b.numel();
    };
    std::sort(free_.begin(), free_.end(), smaller);
    const auto fits = std::find_if(free_.begin(), free_.end(), [&](const at::Tensor& memory) {
      return memory.numel() >= elements && memory.scalar_type() == type;
    });
    if (fits == free_.end()) {
      if (!free_.empty()) free_.pop_back();
      return at::empty({elements}, at::TensorOptions().dtype(type));
    }
    at::Tensor found = *fits;
    free_.erase(fits);
    return found;
  }
  void give_back(at::Tensor memory) { free_.push_back(std::move(memory)); }

 private:
  std::vector<at::Tensor> free_;
};

// sum[i] = the i-th elements of all ranks' parts, added up in order of ranks; `own` is this rank's
// and may be `sum`, the others stand in `arrived` [(ranks - 1) x n].
template <typename T>
void add_parts(const at::Tensor& own, int64_t rank, int64_t ranks, const at::Tensor& arrived,
               const at::Tensor& sum) {
  const int64_t n = sum.numel();
  const T* here = own.const_data_ptr<T>();
  const T* others = arrived.const_data_ptr<T>();
  T* to = sum.mutable_data_ptr<T>();
  parallel_for(n, 1 << 14, [&](int64_t begin, int64_t end) {
    if (ranks == 2) {  // one pass: both orders give the same bits
      for (int64_t i = begin; i < end; ++i) to[i] = here[i] + others[i];
      return;
    }
    constexpr int64_t kBlock = 1 << 10;
    T total[kBlock];
    for (int64_t at = begin; at < end; at += kBlock) {
      const int64_t count = std::min(kBlock, end - at);
      std::fill(total, total + count, T(0));
      for (int64_t r = 0; r < ranks; ++r) {
        const T* part = r == rank ? here : others + (r < rank ? r : r - 1) * n;
        for (int64_t i = 0; i < count; ++i) total[i] += part[at + i];
      }
      std::copy(total, total + count, to + at);
    }
  });
}

// A reduce-scatter under way: sends of the other ranks' parts, and theirs of ours on their way
// here.
struct PartsInFlight {
  std::vector<MPI_Request> requests;
  std::shared_ptr<Arrivals> memory;
  at::Tensor input, own, arrived, sum;
  int64_t rank, ranks;
};

class SumOfParts : public Pending {
 public:
  explicit SumOfParts(PartsInFlight parts) : parts_(std::move(parts)) {}
  ~SumOfParts() override {
    if (std::uncaught_exceptions() == 0) finish();
  }
  SumOfParts(const SumOfParts&) = delete;
  SumOfParts& operator=(const SumOfParts&) = delete;
  void wait() override { finish(); }

 private:
  void finish() {
    if (!parts_.sum.defined()) return;
    check_mpi(MPI_Waitall(static_cast<int>(parts_.requests.size()), parts_.requests.data(),
                          MPI_STATUSES_IGNORE),
              "reduce_scatter");
    const at::ScalarType type = parts_.sum.scalar_type();
    if (type == at::kFloat) add<float>();
    if (type == at::kDouble) add<double>();
    if (type == at::kInt) add<int32_t>();
    if (type == at::kLong) add<int64_t>();
    parts_.memory->give_back(std::move(parts_.arrived));
    parts_ = {};
  }
  template <typename T>
  void add() {
    add_parts<T>(parts_.own, parts_.rank, parts_.ranks, parts_.arrived, parts_.sum);
  }

  PartsInFlight parts_;
};

// Counts and displacements in rows; these vectors must live until the operation ends.
struct Rows {
  std::vector<int> counts, starts;
  explicit Rows(const std::vector<int64_t>& rows) {
    int64_t start = 0;
    for (const int64_t n : rows) {
      TORCH_CHECK(n >= 0 && start + n <= std::numeric_limits<int>::max(), "all_to_all: ", n,
                  " rows");
      counts.push_back(static_cast<int>(n));
      starts.push_back(static_cast<int>(start));
      start += n;
    }
  }
  int64_t total() const { return counts.empty() ? 0 : starts.back() + counts.back(); }
};

class ExchangeRequest : public Pending {
 public:
  ExchangeRequest(Rows send, Rows receive) : send_(std::move(send)), receive_(std::move(receive)) {}
  void wait() override { request_.reset(); }
  Rows send_, receive_;
  std::unique_ptr<Request> request_;
};

class MpiCommunicator : public Communicator {
 public:
  MpiCommunicator(MPI_Comm comm, bool owns_mpi) : comm_(comm), owns_mpi_(owns_mpi) {
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &size_);
  }
  ~MpiCommunicator() override {
    // Both calls below wait for other ranks. While an exception unwinds this rank they are
    // elsewhere, and the job is about to be aborted.
    if (std::uncaught_exceptions() > 0) return;
    MPI_Comm_free(&comm_);
    if (owns_mpi_) MPI_Finalize();
  }
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;

  int64_t rank() const override { return rank_; }
  int64_t size() const override { return size_; }

  void barrier() override { check_mpi(MPI_Barrier(comm_), "barrier"); }

  std::unique_ptr<Pending> all_reduce_async(const at::Tensor& tensor, ReduceOp op) override {
    check_host(tensor, "all_reduce");
    check_sums(tensor, "all_reduce");
    std::vector<std::unique_ptr<Pending>> parts;
    char* data = static_cast<char*>(tensor.data_ptr());
    for (int64_t at = 0; at < tensor.numel(); at += kLargest) {
      const auto count = static_cast<int>(std::min(kLargest, tensor.numel() - at));
      MPI_Request request = MPI_REQUEST_NULL;
      check_mpi(MPI_Iallreduce(MPI_IN_PLACE, data + at * tensor.element_size(), count,
                               mpi_type(tensor), mpi_op(op), comm_, &request),
                "all_reduce");
      parts.push_back(
          std::make_unique<Request>(request, std::vector<at::Tensor>{tensor}, MPI_DATATYPE_NULL));
    }
    return std::make_unique<SeveralRequests>(std::move(parts));
  }

  void broadcast(const at::Tensor& tensor, int64_t root) override {
    check_host(tensor, "broadcast");
    char* data = static_cast<char*>(tensor.data_ptr());
    for (int64_t at = 0; at < tensor.numel(); at += kLargest) {
      const auto count = static_cast<int>(std::min(kLargest, tensor.numel() - at));
      check_mpi(MPI_Bcast(data + at * tensor.element_size(), count, mpi_type(tensor),
                          static_cast<int>(root), comm_),
                "broadcast");
    }
  }

  std::unique_ptr<Pending> all_gather_async(const at::Tensor& output,
                                            const at::Tensor& input) override {
    check_host(output, "all_gather");
    check_host(input, "all_gather");
    TORCH_CHECK(output.numel() == input.numel() * size_ && input.numel() <= kLargest &&
                    output.scalar_type() == input.scalar_type(),
                "all_gather: ", input.sizes(), " on ", size_, " ranks into ", output.sizes());
    const auto count = static_cast<int>(input.numel());
    const auto* own = static_cast<const char*>(output.const_data_ptr()) + rank_ * input.nbytes();
    const bool in_place = input.const_data_ptr() == own;
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(
        MPI_Iallgather(in_place ? MPI_IN_PLACE : input.const_data_ptr(), count, mpi_type(input),
                       output.mutable_data_ptr(), count, mpi_type(output), comm_, &request),
        "all_gather");
    return std::make_unique<Request>(request, std::vector<at::Tensor>{output, input},
                                     MPI_DATATYPE_NULL);
  }

  // Every rank sends each part to its owner, who adds them up in order of ranks: the least bytes,
  // and the same bits whatever arrives first.
  std::unique_ptr<Pending> reduce_scatter_async(const at::Tensor& output,
                                                const at::Tensor& input) override {
    check_host(output, "reduce_scatter");
    check_host(input, "reduce_scatter");
    check_sums(input, "reduce_scatter");
    TORCH_CHECK(input.numel() == output.numel() * size_ && output.numel() <= kLargest &&
                    output.scalar_type() == input.scalar_type(),
                "reduce_scatter: ", input.sizes(), " on ", size_, " ranks into ", output.sizes());
    TORCH_CHECK(output.scalar_type() != at::kByte && output.scalar_type() != at::kBFloat16,
                "reduce_scatter: no sums of ", output.scalar_type());
    const int64_t n = output.numel();
    const at::Tensor flat = input.view({-1});
    PartsInFlight parts{{}, arrivals_, flat,  flat.slice(0, rank_ * n, (rank_ + 1) * n),
                        {}, output,    rank_, size_};
    parts.arrived = arrivals_->take((size_ - 1) * n, output.scalar_type());
    const int64_t bytes = n * output.element_size();
    const auto* from = static_cast<const char*>(flat.const_data_ptr());
    auto* to = static_cast<char*>(parts.arrived.mutable_data_ptr());
    const auto count = static_cast<int>(n);
    const MPI_Datatype type = mpi_type(output);
    for (int other = 0; other < size_; ++other) {
      if (other == rank_) continue;
      check_mpi(MPI_Irecv(to + (other < rank_ ? other : other - 1) * bytes, count, type, other,
                          kPartTag, comm_, &parts.requests.emplace_back()),
                "reduce_scatter");
    }
    for (int step = 1; step < size_; ++step) {  // each rank begins with another receiver
      const int other = (rank_ + step) % size_;
      check_mpi(MPI_Isend(from + other * bytes, count, type, other, kPartTag, comm_,
                          &parts.requests.emplace_back()),
                "reduce_scatter");
    }
    return std::make_unique<SumOfParts>(std::move(parts));
  }

  std::unique_ptr<Pending> all_to_all_async(const at::Tensor& receive,
                                            const std::vector<int64_t>& receive_rows,
                                            const at::Tensor& send,
                                            const std::vector<int64_t>& send_rows) override {
    check_host(receive, "all_to_all");
    check_host(send, "all_to_all");
    auto pending = std::make_unique<ExchangeRequest>(Rows(send_rows), Rows(receive_rows));
    TORCH_CHECK(pending->send_.total() == send.size(0) &&
                    pending->receive_.total() == receive.size(0) &&
                    send.sizes().slice(1) == receive.sizes().slice(1) &&
                    send.scalar_type() == receive.scalar_type() &&
                    static_cast<int64_t>(send_rows.size()) == size_ &&
                    static_cast<int64_t>(receive_rows.size()) == size_,
                "all_to_all: ", pending->send_.total(), " rows of ", send.sizes(), " to ",
                pending->receive_.total(), " rows of ", receive.sizes());
    MPI_Datatype row = row_type(send, "all_to_all");
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(
        MPI_Ialltoallv(send.data_ptr(), pending->send_.counts.data(), pending->send_.starts.data(),
                       row, receive.data_ptr(), pending->receive_.counts.data(),
                       pending->receive_.starts.data(), row, comm_, &request),
        "all_to_all");
    pending->request_ =
        std::make_unique<Request>(request, std::vector<at::Tensor>{send, receive}, row);
    return pending;
  }

  at::Tensor all_to_all_uncounted(const at::Tensor& send, const std::vector<int64_t>& send_rows,
                                  std::vector<int64_t>* receive_rows) override {
    constexpr const char* kOperation = "all_to_all_uncounted";
    check_host(send, kOperation);
    const Rows sent(send_rows);
    TORCH_CHECK(sent.total() == send.size(0) && static_cast<int64_t>(send_rows.size()) == size_,
                kOperation, ": ", sent.total(), " rows of ", send.sizes());
    MPI_Datatype row = row_type(send, kOperation);
    const auto* from = static_cast<const char*>(send.const_data_ptr());
    const int64_t row_bytes = elements_of_row(send) * send.element_size();
    std::vector<MPI_Request> requests;
    for (int step = 1; step < size_; ++step) {  // each rank begins with another receiver
      const int to = (rank_ + step) % size_;
      check_mpi(MPI_Isend(from + sent.starts[to] * row_bytes, sent.counts[to], row, to,
                          kUncountedTag, comm_, &requests.emplace_back()),
                kOperation);
    }
    std::vector<MPI_Message> messages(size_, MPI_MESSAGE_NULL);
    receive_rows->assign(size_, sent.counts[rank_]);
    for (int source = 0; source < size_; ++source) {
      if (source == rank_) continue;
      MPI_Status status;
      int count = 0;
      check_mpi(MPI_Mprobe(source, kUncountedTag, comm_, &messages[source], &status), kOperation);
      check_mpi(MPI_Get_count(&status, row, &count), kOperation);
      (*receive_rows)[source] = count;
    }
    const Rows received(*receive_rows);
    std::vector<int64_t> shape = send.sizes().vec();
    shape[0] = received.total();
    at::Tensor receive = at::empty(shape, send.options());
    auto* to = static_cast<char*>(receive.mutable_data_ptr());
    for (int source = 0; source < size_; ++source) {
      char* begin = to + received.starts[source] * row_bytes;
      if (source == rank_) {
        std::memcpy(begin, from + sent.starts[rank_] * row_bytes, sent.counts[rank_] * row_bytes);
      } else {
        check_mpi(
            MPI_Mrecv(begin, received.counts[source], row, &messages[source], MPI_STATUS_IGNORE),
            kOperation);
      }
    }
    check_mpi(MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE),
              kOperation);
    MPI_Type_free(&row);
    return receive;
  }

  std::unique_ptr<Communicator> split(int64_t color, int64_t key) override {
    MPI_Comm part = MPI_COMM_NULL;
    check_mpi(MPI_Comm_split(comm_, static_cast<int>(color), static_cast<int>(key), &part),
              "split");
    return std::make_unique<MpiCommunicator>(part, /*owns_mpi=*/false);
  }

 private:
  MPI_Comm comm_;
  const bool owns_mpi_;
  std::shared_ptr<Arrivals> arrivals_ = std::make_shared<Arrivals>();
  int rank_ = 0;
  int size_ = 1;
};

}  // namespace

bool started_by_launcher() {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"}) {
    if (std::getenv(variable) != nullptr) return true;
  }
  return false;
}

std::unique_ptr<Communicator> mpi_world() {
  int provided = 0;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
  TORCH_CHECK(provided >= MPI_THREAD_FUNNELED, "this MPI offers no MPI_THREAD_FUNNELED");
  MPI_Comm world = MPI_COMM_NULL;
  MPI_Comm_dup(MPI_COMM_WORLD, &world);
  MPI_Comm_set_errhandler(world, MPI_ERRORS_RETURN);
  return std::make_unique<MpiCommunicator>(world, /*owns_mpi=*/true);
}

std::unique_ptr<Communicator> world_communicator() {
  return started_by_launcher() ? mpi_world() : self_communicator();
}

bool is_first_rank() {
  for (const char* variable : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"}) {
    const char* rank = std::getenv(variable);
    if (rank != nullptr) return std::atoi(rank) == 0;
  }
  return true;
}

void abort_job(int exit_code) {
  int initialized = 0;
  int finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  std::fflush(stdout);
  std::fflush(stderr);
  if (initialized && !finalized) MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

void abort_collective(int64_t rank, const char* operation, const char* error, int exit_code) {
  std::fprintf(stderr, "emo: rank %lld: %s failed: %s\n", static_cast<long long>(rank), operation,
               error);
  abort_job(exit_code);
}

}  // namespace emo

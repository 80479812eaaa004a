// Collectives over a group of ranks.
//
// Every function but rank() and size() is collective: all ranks of the group call the same
// functions in the same order with fitting sizes. Sizes and types come from the tensors, never from
// a count beside them. Tensors are contiguous, on the host or (NCCL) the device, and belong to
// the caller; asynchronous ones stay untouched until wait().
//
// A collective that fails ends the job, naming rank and operation: a rank that came back with an
// error would leave the others waiting.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace emo {

enum class ReduceOp { kSum, kMax };

// An operation under way. wait() may be called once; destroying an unfinished one waits.
class Pending {
 public:
  virtual ~Pending() = default;
  virtual void wait() = 0;
};

// One that is over already.
class Done : public Pending {
 public:
  void wait() override {}
};

// Elements of one row of a tensor [rows, ...].
inline int64_t elements_of_row(const at::Tensor& rows) {
  int64_t elements = 1;
  for (const int64_t extent : rows.sizes().slice(1)) elements *= extent;
  return elements;
}

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int64_t rank() const = 0;
  virtual int64_t size() const = 0;

  virtual void barrier() = 0;

  // In place. The result is the same, bit for bit, on all ranks.
  virtual std::unique_ptr<Pending> all_reduce_async(const at::Tensor& tensor, ReduceOp op) = 0;
  void all_reduce(const at::Tensor& tensor, ReduceOp op) { all_reduce_async(tensor, op)->wait(); }

  virtual void broadcast(const at::Tensor& tensor, int64_t root) = 0;

  // output: size() times input's elements, in order of ranks. input may be this rank's part of
  // output.
  virtual std::unique_ptr<Pending> all_gather_async(const at::Tensor& output,
                                                    const at::Tensor& input) = 0;
  void all_gather(const at::Tensor& output, const at::Tensor& input) {
    all_gather_async(output, input)->wait();
  }

  // input: size() times output's elements; rank r receives the sum of all r-th parts. output may be
  // this rank's part of input; the rest of input stays as it is.
  virtual std::unique_ptr<Pending> reduce_scatter_async(const at::Tensor& output,
                                                        const at::Tensor& input) = 0;
  void reduce_scatter(const at::Tensor& output, const at::Tensor& input) {
    reduce_scatter_async(output, input)->wait();
  }

  // Row-wise exchange. `send` [sum(send_rows), ...] holds the rows for rank 0, 1, ... in order, and
  // `receive` [sum(receive_rows), ...] those from rank 0, 1, ... Rows have the same shape
  // everywhere.
  virtual std::unique_ptr<Pending> all_to_all_async(const at::Tensor& receive,
                                                    const std::vector<int64_t>& receive_rows,
                                                    const at::Tensor& send,
                                                    const std::vector<int64_t>& send_rows) = 0;
  void all_to_all(const at::Tensor& receive, const std::vector<int64_t>& receive_rows,
                  const at::Tensor& send, const std::vector<int64_t>& send_rows) {
    all_to_all_async(receive, receive_rows, send, send_rows)->wait();
  }

  // As all_to_all, on the host, where receivers do not know what comes: answers the rows and writes
  // how many came from each rank to `receive_rows` [size()]. One message to each rank, no counts
  // before it.
  virtual at::Tensor all_to_all_uncounted(const at::Tensor& send,
                                          const std::vector<int64_t>& send_rows,
                                          std::vector<int64_t>* receive_rows) = 0;

  // A communicator of the ranks that pass the same `color`, ordered by `key`.
  virtual std::unique_ptr<Communicator> split(int64_t color, int64_t key) = 0;
};

}  // namespace emo

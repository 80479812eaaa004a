// A library in NCCL's and CUDA's place: the calls that parallel/nccl_communicator.cc makes, with
// their real signatures, on host memory and over MPI, one process per rank. It is there to find
// mistakes, so it is as slow as it likes and stricter than the real ones.
//
// Streams. The null stream is the compute stream: tests compute on the host, so its work is done at
// once. A created stream is a queue that runs only when something waits for it: the compute stream
// for an event, or the host for the stream. So a result that nothing waited for is not there.
// A created stream must have waited for the compute stream after its last operation before it is
// given the next (else what the operation reads may not be written yet), and no event may be
// recorded or waited for inside a group, nor waited for before it is recorded.
//
// Calls. When a call is made (a group: when it ends), the ranks concerned tell each other what they
// are about to do and compare: operation, count, type, reduction, root, and for each send its
// receive. Where these differ each of them gets ncclInvalidUsage and nothing is queued. Checked on
// the spot: pointers, types, ranks, buffers that overlap (but for NCCL's in-place rules), groups
// that are not balanced, a communicator on two streams, and handles that were destroyed or
// destroyed while in use.
//
// A rank that waits a minute for another ends the job and names the call: that is how a message
// comes to light whose other end has nothing at all to do with this rank. Ranks that wait for their
// operations in different orders would wait for each other here, though not on GPUs.
#pragma once

#include <cuda_runtime_api.h>
#include <mpi.h>
#include <nccl.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

// The handles' types are NCCL's and CUDA's, whose headers only name them.
struct CUstream_st {
  std::deque<std::function<void()>> queue;
  int64_t queued = 0;  // work so far, and how much of it is done
  int64_t done = 0;
  int64_t waited_for_compute = 0;  // when the event that it waited for was recorded
  int64_t last_operation = 0;      // when it was queued
};

struct CUevent_st {
  bool recorded = false;
  cudaStream_t stream = nullptr;  // where; null: the compute stream
  int64_t position = 0;           // work before it in `stream`
  int64_t time = 0;
};

struct ncclComm {
  MPI_Comm mpi = MPI_COMM_NULL;
  int rank = 0;
  int size = 1;
  cudaStream_t stream = nullptr;  // the one it is used on, once it is
};

namespace emo::stand_in {

// Objects behind handles. A destroyed one keeps its memory, so that no later handle equals it.
template <typename T>
class Handles {
 public:
  T* make(T value = {}) {
    all_.push_back(std::make_unique<T>(std::move(value)));
    live_.insert(all_.back().get());
    return all_.back().get();
  }
  bool live(const T* handle) const { return live_.contains(handle); }
  void destroy(const T* handle) { live_.erase(handle); }

 private:
  std::vector<std::unique_ptr<T>> all_;
  std::unordered_set<const T*> live_;
};

enum class Kind : int64_t {
  kAllReduce,
  kBroadcast,
  kAllGather,
  kReduceScatter,
  kSend,
  kReceive,
  kDestroy
};

struct Call {
  Kind kind = Kind::kDestroy;
  const void* send = nullptr;
  void* receive = nullptr;
  size_t count = 0;
  ncclDataType_t type = ncclUint8;
  ncclRedOp_t op = ncclSum;
  int peer = 0;  // or the root
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;
};

bool is_message(Kind kind);  // a send or receive
const char* name_of(Kind kind);
int64_t bytes_of(ncclDataType_t type);  // 0: not a type that the stand-in knows

// What CUDA and NCCL keep in globals.
struct State {
  int64_t clock = 0;
  Handles<CUstream_st> streams;
  Handles<CUevent_st> events;
  Handles<ncclComm> comms;
  int open_groups = 0;
  std::vector<Call> group;
  ncclResult_t group_result = ncclSuccess;         // the first error inside the group
  int64_t ids = 0;                                 // made here
  std::set<std::pair<int64_t, int64_t>> used_ids;  // maker, number
  std::string nccl_error;
  std::map<cudaError_t, std::string> cuda_errors;  // the last of each code
};
State& state();

// Remembers what was wrong, for ncclGetLastError and cudaGetErrorString, and answers the code.
ncclResult_t refuse(ncclResult_t code, const std::string& call, const std::string& text);
cudaError_t refuse(cudaError_t code, const std::string& call, const std::string& text);

// Runs what was queued on a created stream, up to a position.
void run_stream(cudaStream_t stream, int64_t position);

// Tells the ranks concerned by these calls on one communicator what this one is about to do, and
// hears what they are. Empty: they agree; else all ranks of a collective, or both ends of a
// message, have an answer that names the difference.
std::string compare(const std::vector<Call>& calls);

// Moves the data of calls on one communicator that its ranks agreed on.
void run_calls(const std::vector<Call>& calls);

}  // namespace emo::stand_in

#include "tests/nccl_stand_in/peers.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>

namespace emo::stand_in {
namespace {

constexpr std::chrono::seconds kPatience(60);
constexpr int kDataTag = 1;
constexpr size_t kLargest = size_t{1} << 30;

// Asks `done` again and again, leaving the core to other ranks in between.
template <typename Done>
void poll(const char* call, const Done& done) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) {
      std::fprintf(stderr, "NCCL stand-in: rank %d: %s: no answer from another rank in a minute\n",
                   job_rank(), call);
      MPI_Abort(MPI_COMM_WORLD, 69);
    }
    std::this_thread::yield();
  }
}

}  // namespace

int job_rank() {
  int rank = -1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

MPI_Request send_numbers(const std::vector<int64_t>& numbers, int to, int tag, MPI_Comm comm) {
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Isend(numbers.data(), static_cast<int>(numbers.size()), MPI_INT64_T, to, tag, comm, &request);
  return request;
}

Numbers receive_numbers(int from, int tag, MPI_Comm comm, const char* call) {
  MPI_Message message = MPI_MESSAGE_NULL;
  MPI_Status status;
  poll(call, [&] {
    int arrived = 0;
    MPI_Improbe(from, tag, comm, &arrived, &message, &status);
    return arrived != 0;
  });
  int count = 0;
  MPI_Get_count(&status, MPI_INT64_T, &count);
  Numbers numbers{std::vector<int64_t>(count), status.MPI_SOURCE};
  MPI_Mrecv(numbers.values.data(), count, MPI_INT64_T, &message, MPI_STATUS_IGNORE);
  return numbers;
}

void send_bytes(const void* from, size_t count, int to, MPI_Comm comm,
                std::vector<MPI_Request>* requests) {
  const auto* begin = static_cast<const char*>(from);
  for (size_t at = 0; at < count; at += kLargest) {
    MPI_Isend(begin + at, static_cast<int>(std::min(kLargest, count - at)), MPI_BYTE, to, kDataTag,
              comm, &requests->emplace_back());
  }
}

void receive_bytes(void* to, size_t count, int from, MPI_Comm comm,
                   std::vector<MPI_Request>* requests) {
  auto* begin = static_cast<char*>(to);
  for (size_t at = 0; at < count; at += kLargest) {
    MPI_Irecv(begin + at, static_cast<int>(std::min(kLargest, count - at)), MPI_BYTE, from,
              kDataTag, comm, &requests->emplace_back());
  }
}

void wait_for(std::vector<MPI_Request>* requests, const char* call) {
  poll(call, [&] {
    int done = 0;
    MPI_Testall(static_cast<int>(requests->size()), requests->data(), &done, MPI_STATUSES_IGNORE);
    return done != 0;
  });
  requests->clear();
}

}  // namespace emo::stand_in

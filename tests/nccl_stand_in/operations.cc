// What the operations do to memory.
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <cstring>

#include "tests/nccl_stand_in/peers.h"
#include "tests/nccl_stand_in/stand_in.h"

namespace emo::stand_in {
namespace {

template <typename T>
void reduce(char* into, const char* from, size_t count, ncclRedOp_t op) {
  auto* a = reinterpret_cast<T*>(into);
  const auto* b = reinterpret_cast<const T*>(from);
  for (size_t i = 0; i < count; ++i)
    a[i] = op == ncclSum ? static_cast<T>(a[i] + b[i]) : std::max(a[i], b[i]);
}

void reduce(char* into, const char* from, const Call& call) {
  switch (call.type) {
    case ncclFloat32:
      return reduce<float>(into, from, call.count, call.op);
    case ncclFloat64:
      return reduce<double>(into, from, call.count, call.op);
    case ncclBfloat16:
      return reduce<c10::BFloat16>(into, from, call.count, call.op);
    case ncclInt32:
      return reduce<int32_t>(into, from, call.count, call.op);
    case ncclInt64:
      return reduce<int64_t>(into, from, call.count, call.op);
    default:
      return reduce<uint8_t>(into, from, call.count, call.op);
  }
}

size_t bytes(const Call& call) { return call.count * bytes_of(call.type); }

// Sends `part(rank)` to each rank, call.count elements each, and answers what each sent here.
template <typename Part>
std::vector<std::vector<char>> gather(const Call& call, const Part& part) {
  const ncclComm& comm = *call.comm;
  std::vector<std::vector<char>> pieces(comm.size, std::vector<char>(bytes(call)));
  std::vector<MPI_Request> requests;
  for (int peer = 0; peer < comm.size; ++peer) {
    receive_bytes(pieces[peer].data(), bytes(call), peer, comm.mpi, &requests);
    send_bytes(part(peer), bytes(call), peer, comm.mpi, &requests);
  }
  wait_for(&requests, name_of(call.kind));
  return pieces;
}

// In the order of ranks, so that every rank has the same bits.
void reduce_pieces(const Call& call, std::vector<std::vector<char>> pieces) {
  for (size_t rank = 1; rank < pieces.size(); ++rank)
    reduce(pieces[0].data(), pieces[rank].data(), call);
  std::copy(pieces[0].begin(), pieces[0].end(), static_cast<char*>(call.receive));
}

void broadcast(const Call& call) {
  const ncclComm& comm = *call.comm;
  std::vector<MPI_Request> requests;
  if (comm.rank != call.peer) {
    receive_bytes(call.receive, bytes(call), call.peer, comm.mpi, &requests);
  } else {
    for (int peer = 0; peer < comm.size; ++peer)
      if (peer != comm.rank) send_bytes(call.send, bytes(call), peer, comm.mpi, &requests);
    std::memmove(call.receive, call.send, bytes(call));
  }
  wait_for(&requests, name_of(call.kind));
}

void run_collective(const Call& call) {
  const auto* send = static_cast<const char*>(call.send);
  const auto all = [&](int) { return send; };
  const auto own = [&](int peer) { return send + peer * bytes(call); };
  switch (call.kind) {
    case Kind::kAllReduce:
      return reduce_pieces(call, gather(call, all));
    case Kind::kReduceScatter:
      return reduce_pieces(call, gather(call, own));
    case Kind::kBroadcast:
      return broadcast(call);
    case Kind::kAllGather: {
      auto* to = static_cast<char*>(call.receive);
      for (const auto& piece : gather(call, all)) to = std::copy(piece.begin(), piece.end(), to);
      return;
    }
    default:
      return;
  }
}

// All sends and receives at once.
void run_messages(const std::vector<Call>& calls) {
  std::vector<MPI_Request> requests;
  for (const Call& call : calls) {
    if (call.kind == Kind::kReceive)
      receive_bytes(call.receive, bytes(call), call.peer, call.comm->mpi, &requests);
    if (call.kind == Kind::kSend)
      send_bytes(call.send, bytes(call), call.peer, call.comm->mpi, &requests);
  }
  wait_for(&requests, "ncclSend and ncclRecv");
}

}  // namespace

void run_calls(const std::vector<Call>& calls) {
  run_messages(calls);
  for (const Call& call : calls) run_collective(call);
}

}  // namespace emo::stand_in

// NCCL's calls: what can be checked on one rank, and groups.
#include <algorithm>
#include <string>

#include "tests/nccl_stand_in/peers.h"
#include "tests/nccl_stand_in/stand_in.h"

namespace emo::stand_in {

bool is_message(Kind kind) { return kind == Kind::kSend || kind == Kind::kReceive; }

const char* name_of(Kind kind) {
  switch (kind) {
    case Kind::kAllReduce:
      return "ncclAllReduce";
    case Kind::kBroadcast:
      return "ncclBroadcast";
    case Kind::kAllGather:
      return "ncclAllGather";
    case Kind::kReduceScatter:
      return "ncclReduceScatter";
    case Kind::kSend:
      return "ncclSend";
    case Kind::kReceive:
      return "ncclRecv";
    default:
      return "ncclCommDestroy";
  }
}

int64_t bytes_of(ncclDataType_t type) {
  switch (type) {
    case ncclUint8:
      return 1;
    case ncclBfloat16:
      return 2;
    case ncclInt32:
    case ncclFloat32:
      return 4;
    case ncclInt64:
    case ncclFloat64:
      return 8;
    default:
      return 0;
  }
}

ncclResult_t refuse(ncclResult_t code, const std::string& call, const std::string& text) {
  state().nccl_error = "rank " + std::to_string(job_rank()) + ": " + call + ": " + text;
  return code;
}

namespace {

// A buffer of a call.
struct Range {
  const char* begin;
  size_t bytes;
  bool overlaps(const Range& other) const {
    return bytes > 0 && other.bytes > 0 && begin < other.begin + other.bytes &&
           other.begin < begin + bytes;
  }
};

Range sent(const Call& call) {
  const size_t parts = call.kind == Kind::kReduceScatter ? call.comm->size : 1;
  const bool none = call.kind == Kind::kReceive ||
                    (call.kind == Kind::kBroadcast && call.comm->rank != call.peer);
  return {static_cast<const char*>(call.send), none ? 0 : parts * call.count * bytes_of(call.type)};
}

Range received(const Call& call) {
  const size_t parts = call.kind == Kind::kAllGather ? call.comm->size : 1;
  return {static_cast<const char*>(call.receive),
          call.kind == Kind::kSend ? 0 : parts * call.count * bytes_of(call.type)};
}

// Where NCCL allows an operation to be in place: as nccl.h says for each of them.
bool in_place(const Call& call) {
  const size_t own_part = call.comm->rank * call.count * bytes_of(call.type);
  const auto* send = static_cast<const char*>(call.send);
  const auto* receive = static_cast<const char*>(call.receive);
  if (call.kind == Kind::kAllGather) return send == receive + own_part;
  if (call.kind == Kind::kReduceScatter) return receive == send + own_part;
  return !is_message(call.kind) && send == receive;
}

// What can be seen without the other ranks; empty: nothing wrong.
std::string wrong_argument(const Call& call) {
  if (bytes_of(call.type) == 0) return "type " + std::to_string(call.type);
  if (call.op != ncclSum && call.op != ncclMax) return "reduction " + std::to_string(call.op);
  if (call.peer < 0 || call.peer >= call.comm->size)
    return "rank " + std::to_string(call.peer) + " of " + std::to_string(call.comm->size);
  const Range in = sent(call);
  const Range out = received(call);
  if ((in.bytes > 0 && in.begin == nullptr) || (out.bytes > 0 && out.begin == nullptr))
    return "null for " + std::to_string(call.count) + " elements";
  if (in.overlaps(out) && !in_place(call)) return "the buffers overlap, and not as NCCL allows";
  return "";
}

std::string wrong_stream(const Call& call) {
  if (!state().streams.live(call.stream)) return "needs a created stream";
  if (call.comm->stream != nullptr && call.comm->stream != call.stream)
    return "the communicator is used on another stream";
  return "";
}

// What the calls of a group must fulfil together; a call outside of one is a group by itself.
std::string wrong_group(const std::vector<Call>& calls) {
  for (const Call& call : calls) {
    if (call.stream->waited_for_compute <= call.stream->last_operation)
      return "the stream has not waited for the compute stream since its last operation";
    const Range out = received(call);
    for (const Call& other : calls) {
      if (other.comm == call.comm && other.stream != call.stream)
        return "the communicator is used on two streams";
      if (&other != &call && (out.overlaps(sent(other)) || out.overlaps(received(other))))
        return "the buffers of two calls of a group overlap";
    }
  }
  return "";
}

// Queues calls on one communicator as one operation, if its ranks agree on them.
ncclResult_t launch(const std::vector<Call>& calls) {
  const Call& first = calls[0];
  const std::string wrong = compare(calls);
  if (!wrong.empty()) return refuse(ncclInvalidUsage, name_of(first.kind), wrong);
  first.comm->stream = first.stream;
  first.stream->queue.push_back([calls] { run_calls(calls); });
  ++first.stream->queued;
  first.stream->last_operation = ++state().clock;
  return ncclSuccess;
}

// Launches the calls of each communicator, in the order in which they were first used.
ncclResult_t launch_group(std::vector<Call> calls) {
  const std::string wrong = wrong_group(calls);
  if (!wrong.empty()) return refuse(ncclInvalidUsage, name_of(calls[0].kind), wrong);
  while (!calls.empty()) {
    const ncclComm_t comm = calls[0].comm;
    const auto others = std::stable_partition(calls.begin(), calls.end(),
                                              [&](const Call& call) { return call.comm == comm; });
    const ncclResult_t result = launch(std::vector<Call>(calls.begin(), others));
    if (result != ncclSuccess) return result;
    calls.erase(calls.begin(), others);
  }
  return ncclSuccess;
}

ncclResult_t check(const Call& call) {
  const char* name = name_of(call.kind);
  if (!state().comms.live(call.comm))
    return refuse(ncclInvalidArgument, name, "the communicator does not exist");
  const std::string argument = wrong_argument(call);
  if (!argument.empty()) return refuse(ncclInvalidArgument, name, argument);
  const std::string stream = wrong_stream(call);
  if (!stream.empty()) return refuse(ncclInvalidUsage, name, stream);
  return ncclSuccess;
}

ncclResult_t submit(const Call& call) {
  const ncclResult_t result = check(call);
  if (state().open_groups == 0) return result == ncclSuccess ? launch_group({call}) : result;
  if (result == ncclSuccess) state().group.push_back(call);
  if (state().group_result == ncclSuccess) state().group_result = result;
  return result;
}

}  // namespace
}  // namespace emo::stand_in

using emo::stand_in::Call;
using emo::stand_in::Kind;
using emo::stand_in::refuse;
using emo::stand_in::state;

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return "no error";
    case ncclInvalidArgument:
      return "invalid argument";
    case ncclInvalidUsage:
      return "invalid usage";
    default:
      return "error";
  }
}

const char* ncclGetLastError(ncclComm_t) { return state().nccl_error.c_str(); }

ncclResult_t ncclAllReduce(const void* send, void* receive, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  return emo::stand_in::submit({Kind::kAllReduce, send, receive, count, type, op, 0, comm, stream});
}

ncclResult_t ncclBroadcast(const void* send, void* receive, size_t count, ncclDataType_t type,
                           int root, ncclComm_t comm, cudaStream_t stream) {
  return emo::stand_in::submit(
      {Kind::kBroadcast, send, receive, count, type, ncclSum, root, comm, stream});
}

ncclResult_t ncclAllGather(const void* send, void* receive, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
  return emo::stand_in::submit(
      {Kind::kAllGather, send, receive, count, type, ncclSum, 0, comm, stream});
}

ncclResult_t ncclReduceScatter(const void* send, void* receive, size_t count, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  return emo::stand_in::submit(
      {Kind::kReduceScatter, send, receive, count, type, op, 0, comm, stream});
}

ncclResult_t ncclSend(const void* send, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  return emo::stand_in::submit(
      {Kind::kSend, send, nullptr, count, type, ncclSum, peer, comm, stream});
}

ncclResult_t ncclRecv(void* receive, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return emo::stand_in::submit(
      {Kind::kReceive, nullptr, receive, count, type, ncclSum, peer, comm, stream});
}

ncclResult_t ncclGroupStart() {
  ++state().open_groups;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  if (state().open_groups == 0) return refuse(ncclInvalidUsage, __func__, "without ncclGroupStart");
  if (--state().open_groups > 0) return ncclSuccess;
  const std::vector<Call> calls = std::exchange(state().group, {});
  const ncclResult_t result = std::exchange(state().group_result, ncclSuccess);
  return result == ncclSuccess ? emo::stand_in::launch_group(calls) : result;
}

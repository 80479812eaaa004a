// NCCL's communicators: the ranks that know an id meet through MPI.
#include <cstring>
#include <string>

#include "tests/nccl_stand_in/peers.h"
#include "tests/nccl_stand_in/stand_in.h"

namespace emo::stand_in {
namespace {

constexpr int64_t kMagic = 0x656d6f2d6e63636c;
constexpr int kFirstTag = 1000;  // in MPI_COMM_WORLD; one tag for each id of a process

// What an ncclUniqueId holds. Who made it must be a rank of the group: the others report there.
struct Id {
  int64_t magic = 0;
  int64_t maker = 0;  // rank in MPI_COMM_WORLD
  int64_t number = 0;
};

Id read_id(const ncclUniqueId& id) {
  Id content;
  std::memcpy(&content, id.internal, sizeof(content));
  return content;
}

// What a rank reports: how many ranks it expects, which one it is.
struct Report {
  int64_t size, rank, job_rank;
};

// The job ranks of the group in its order; empty where reports do not fit together.
std::vector<int64_t> order_of(const std::vector<Report>& reports) {
  const auto size = static_cast<int64_t>(reports.size());
  std::vector<int64_t> order(reports.size(), -1);
  for (const Report& report : reports) {
    if (report.size != size || order[report.rank] >= 0) return {};
    order[report.rank] = report.job_rank;
  }
  return order;
}

// The maker of the id hears all ranks and tells them the order.
std::vector<int64_t> invite(const Report& own, int tag, const char* call) {
  std::vector<Report> reports = {own};
  while (static_cast<int64_t>(reports.size()) < own.size) {
    const Numbers heard = receive_numbers(MPI_ANY_SOURCE, tag, MPI_COMM_WORLD, call);
    reports.push_back({heard.values[0], heard.values[1], heard.source});
  }
  const std::vector<int64_t> order = order_of(reports);
  std::vector<MPI_Request> requests;
  for (size_t i = 1; i < reports.size(); ++i)
    requests.push_back(
        send_numbers(order, static_cast<int>(reports[i].job_rank), tag, MPI_COMM_WORLD));
  wait_for(&requests, call);
  return order;
}

std::vector<int64_t> join(const Report& own, int maker, int tag, const char* call) {
  const std::vector<int64_t> report = {own.size, own.rank};
  std::vector<MPI_Request> requests = {send_numbers(report, maker, tag, MPI_COMM_WORLD)};
  wait_for(&requests, call);
  return receive_numbers(maker, tag, MPI_COMM_WORLD, call).values;
}

MPI_Comm make_group(const std::vector<int64_t>& job_ranks, int tag) {
  MPI_Group world = MPI_GROUP_NULL;
  MPI_Group group = MPI_GROUP_NULL;
  MPI_Comm comm = MPI_COMM_NULL;
  const std::vector<int> ranks(job_ranks.begin(), job_ranks.end());
  MPI_Comm_group(MPI_COMM_WORLD, &world);
  MPI_Group_incl(world, static_cast<int>(ranks.size()), ranks.data(), &group);
  MPI_Comm_create_group(MPI_COMM_WORLD, group, tag, &comm);
  MPI_Group_free(&group);
  MPI_Group_free(&world);
  return comm;
}

}  // namespace
}  // namespace emo::stand_in

using emo::stand_in::Call;
using emo::stand_in::Id;
using emo::stand_in::Kind;
using emo::stand_in::refuse;
using emo::stand_in::Report;
using emo::stand_in::state;

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  if (id == nullptr) return refuse(ncclInvalidArgument, __func__, "null");
  const Id content{emo::stand_in::kMagic, emo::stand_in::job_rank(), state().ids++};
  *id = {};
  std::memcpy(id->internal, &content, sizeof(content));
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int size, ncclUniqueId unique_id, int rank) {
  const Id id = emo::stand_in::read_id(unique_id);
  if (comm == nullptr || size < 1 || rank < 0 || rank >= size)
    return refuse(ncclInvalidArgument, __func__,
                  "rank " + std::to_string(rank) + " of " + std::to_string(size));
  if (id.magic != emo::stand_in::kMagic)
    return refuse(ncclInvalidArgument, __func__, "an id that ncclGetUniqueId did not make");
  if (state().open_groups > 0) return refuse(ncclInvalidUsage, __func__, "inside a group");
  if (!state().used_ids.insert({id.maker, id.number}).second)
    return refuse(ncclInvalidArgument, __func__, "this rank has used the id before");
  const Report own{size, rank, emo::stand_in::job_rank()};
  const int tag = emo::stand_in::kFirstTag + static_cast<int>(id.number);
  const std::vector<int64_t> order =
      id.maker == own.job_rank
          ? emo::stand_in::invite(own, tag, __func__)
          : emo::stand_in::join(own, static_cast<int>(id.maker), tag, __func__);
  if (order.empty())
    return refuse(ncclInvalidArgument, __func__,
                  "ranks differ on the size, or two have one number");
  *comm = state().comms.make({emo::stand_in::make_group(order, tag), rank, size, nullptr});
  return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  if (!state().comms.live(comm))
    return refuse(ncclInvalidArgument, __func__, "the communicator does not exist");
  if (state().open_groups > 0) return refuse(ncclInvalidUsage, __func__, "inside a group");
  if (comm->stream != nullptr && comm->stream->done < comm->stream->queued)
    return refuse(ncclInvalidUsage, __func__,
                  "work that nothing waited for is still queued on its stream");
  Call call;
  call.kind = Kind::kDestroy;
  call.comm = comm;
  const std::string wrong = emo::stand_in::compare({call});
  if (!wrong.empty()) return refuse(ncclInvalidUsage, __func__, wrong);
  state().comms.destroy(comm);
  MPI_Comm_free(&comm->mpi);
  return ncclSuccess;
}

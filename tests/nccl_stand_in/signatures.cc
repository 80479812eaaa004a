// What ranks tell each other before an operation.
#include <algorithm>
#include <iterator>
#include <string>

#include "tests/nccl_stand_in/peers.h"
#include "tests/nccl_stand_in/stand_in.h"

namespace emo::stand_in {
namespace {

constexpr int kSignatureTag = 2;

// What ranks tell each other of a call.
using Signature = std::vector<int64_t>;
constexpr size_t kSignatureLength = 5;

Signature signature(const Call& call) {
  return {static_cast<int64_t>(call.kind), static_cast<int64_t>(call.count), call.type, call.op,
          is_message(call.kind) ? 0 : call.peer};
}

std::string describe(const std::vector<Signature>& calls) {
  std::string text;
  for (const Signature& call : calls) {
    text += (text.empty() ? "" : ", ") + std::string(name_of(static_cast<Kind>(call[0]))) +
            "(count " + std::to_string(call[1]) + ", type " + std::to_string(call[2]) +
            ", reduction " + std::to_string(call[3]) + ", root " + std::to_string(call[4]) + ")";
  }
  return text.empty() ? "nothing" : text;
}

// The calls that concern this rank and `peer`.
std::vector<Signature> signatures(const std::vector<Call>& calls, int peer) {
  std::vector<Signature> all;
  for (const Call& call : calls)
    if (!is_message(call.kind) || call.peer == peer) all.push_back(signature(call));
  return all;
}

std::vector<Signature> only(const std::vector<Signature>& calls, bool (*wanted)(Kind)) {
  std::vector<Signature> some;
  std::copy_if(calls.begin(), calls.end(), std::back_inserter(some),
               [&](const Signature& call) { return wanted(static_cast<Kind>(call[0])); });
  return some;
}

bool is_collective(Kind kind) { return !is_message(kind); }
bool is_send(Kind kind) { return kind == Kind::kSend; }
bool is_receive(Kind kind) { return kind == Kind::kReceive; }

// As the peer of these sends (receives) should see them.
std::vector<Signature> mirrored(std::vector<Signature> calls) {
  for (Signature& call : calls)
    call[0] =
        static_cast<int64_t>(is_send(static_cast<Kind>(call[0])) ? Kind::kReceive : Kind::kSend);
  return calls;
}

bool fit(const std::vector<Signature>& mine, const std::vector<Signature>& theirs) {
  return only(mine, is_collective) == only(theirs, is_collective) &&
         mirrored(only(mine, is_send)) == only(theirs, is_receive) &&
         mirrored(only(mine, is_receive)) == only(theirs, is_send);
}

std::vector<Signature> split(const std::vector<int64_t>& numbers) {
  std::vector<Signature> calls;
  for (size_t at = 0; at < numbers.size(); at += kSignatureLength)
    calls.emplace_back(numbers.begin() + static_cast<int64_t>(at),
                       numbers.begin() + static_cast<int64_t>(at + kSignatureLength));
  return calls;
}

}  // namespace

std::string compare(const std::vector<Call>& calls) {
  const ncclComm& comm = *calls[0].comm;
  std::vector<std::vector<int64_t>> messages(comm.size);
  std::vector<MPI_Request> requests;
  for (int peer = 0; peer < comm.size; ++peer) {
    for (const Signature& call : signatures(calls, peer))
      messages[peer].insert(messages[peer].end(), call.begin(), call.end());
    if (!messages[peer].empty())
      requests.push_back(send_numbers(messages[peer], peer, kSignatureTag, comm.mpi));
  }
  std::string wrong;
  for (int peer = 0; peer < comm.size; ++peer) {
    if (messages[peer].empty()) continue;
    const std::vector<Signature> mine = split(messages[peer]);
    const std::vector<Signature> theirs =
        split(receive_numbers(peer, kSignatureTag, comm.mpi, name_of(calls[0].kind)).values);
    if (!fit(mine, theirs))
      wrong = "rank " + std::to_string(comm.rank) + " of the group does " + describe(mine) +
              ", rank " + std::to_string(peer) + " does " + describe(theirs);
  }
  wait_for(&requests, name_of(calls[0].kind));
  return wrong;
}

}  // namespace emo::stand_in

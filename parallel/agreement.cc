#include "parallel/agreement.h"

#include <ATen/ops/from_blob.h>

#include <string>

namespace emo {

absl::Status agree(Communicator& world, const absl::Status& status) {
  // The first rank with an error, as a maximum of (size - rank); being stopped ranks below real
  // errors.
  const int64_t size = world.size();
  const bool stopped = absl::IsCancelled(status);
  int64_t first = status.ok() ? 0 : size - world.rank() + (stopped ? 0 : size);
  world.all_reduce(at::from_blob(&first, {1}, at::kLong), ReduceOp::kMax);
  if (first == 0) return absl::OkStatus();
  const int64_t root = size - ((first - 1) % size + 1);
  std::string message(status.message());
  int64_t head[2] = {static_cast<int64_t>(status.code()), static_cast<int64_t>(message.size())};
  world.broadcast(at::from_blob(head, {2}, at::kLong), root);
  message.resize(static_cast<size_t>(head[1]));
  world.broadcast(at::from_blob(message.data(), {head[1]}, at::kByte), root);
  return absl::Status(static_cast<absl::StatusCode>(head[0]), message);
}

std::vector<std::string> gather_texts(Communicator& world, const std::string& text) {
  std::vector<std::string> texts(world.size());
  for (int64_t rank = 0; rank < world.size(); ++rank) {
    std::string& part = texts[rank];
    if (rank == world.rank()) part = text;
    auto size = static_cast<int64_t>(part.size());
    world.broadcast(at::from_blob(&size, {1}, at::kLong), rank);
    part.resize(static_cast<size_t>(size));
    world.broadcast(at::from_blob(part.data(), {size}, at::kByte), rank);
  }
  return texts;
}

}  // namespace emo

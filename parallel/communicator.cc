#include "parallel/communicator.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

namespace emo {

std::vector<int64_t> exchange_counts(Communicator& group, const std::vector<int64_t>& send) {
  const std::vector<int64_t> ones(group.size(), 1);
  std::vector<int64_t> receive(send.size());
  const int64_t n = static_cast<int64_t>(send.size()) / group.size();
  const auto view = [&](const std::vector<int64_t>& counts) {
    return at::from_blob(const_cast<int64_t*>(counts.data()), {group.size(), n}, at::kLong);
  };
  group.all_to_all(view(receive), ones, view(send), ones);
  return receive;
}

}  // namespace emo

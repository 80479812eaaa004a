#include "data/order/reference_order.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "data/order/numpy_shuffle.h"

namespace emo {
namespace {

constexpr size_t kWindows = 4;           // of an epoch in memory
constexpr int64_t kTargetTokens = 8192;  // the reference's max_target_sequence_length

}  // namespace

int64_t reference_group(int64_t sequence_length) {
  return std::max(kTargetTokens, sequence_length) / sequence_length;
}

absl::StatusOr<std::unique_ptr<ReferenceOrder>> ReferenceOrder::create(
    ReferenceOrderOptions options) {
  if (options.num_chunks < options.batch) {
    return absl::InvalidArgumentError(absl::StrCat("data.order reference: ", options.num_chunks,
                                                   " sequences are no batch of ", options.batch));
  }
  if (options.num_chunks / options.group > UINT32_MAX) {
    return absl::InvalidArgumentError(absl::StrCat("data.order reference: ", options.num_chunks,
                                                   " sequences are more than it can number"));
  }
  return std::unique_ptr<ReferenceOrder>(new ReferenceOrder(std::move(options)));
}

ReferenceOrder::ReferenceOrder(ReferenceOrderOptions options)
    : options_(std::move(options)),
      per_epoch_(options_.num_chunks / options_.batch * options_.batch) {}

absl::StatusOr<int64_t> ReferenceOrder::chunk(int64_t index) {
  const int64_t position = index % per_epoch_;
  const int64_t group = position / options_.group;
  const std::lock_guard lock(mutex_);
  absl::StatusOr<Epoch*> epoch = epoch_of(1 + index / per_epoch_);
  if (!epoch.ok()) return epoch.status();
  absl::StatusOr<const Window*> window = window_of(*epoch, group / kWindow);
  if (!window.ok()) return window.status();
  return static_cast<int64_t>((*window)->groups[group % kWindow]) * options_.group +
         position % options_.group;
}

absl::StatusOr<ReferenceOrder::Epoch*> ReferenceOrder::epoch_of(int64_t number) {
  const auto found = epochs_.find(number);
  if (found != epochs_.end()) return &found->second;
  Epoch epoch;
  const uint64_t seed = options_.seed + static_cast<uint64_t>(number);
  if (options_.folder.empty()) {
    epoch.memory = shuffled(seed);
  } else {
    absl::Status status = find_or_shuffle(seed, &epoch);
    if (!status.ok()) return status;
  }
  // Rows of two epochs meet at a border; older ones are not asked for again.
  while (epochs_.size() > 1) epochs_.erase(epochs_.begin());
  return &epochs_.emplace(number, std::move(epoch)).first->second;
}

// Rows are asked for one after another, by a few threads: of a file a few windows are in memory.
absl::StatusOr<const ReferenceOrder::Window*> ReferenceOrder::window_of(Epoch* epoch,
                                                                        int64_t number) const {
  for (const Window& window : epoch->windows) {
    if (window.number == number) return &window;
  }
  const int64_t count = num_groups();
  Window window{number, {}};
  window.groups.resize(static_cast<size_t>(std::min(kWindow, count - number * kWindow)));
  if (epoch->file) {
    absl::Status status =
        epoch->file->read(number * kWindow * 4, static_cast<int64_t>(window.groups.size()) * 4,
                          reinterpret_cast<char*>(window.groups.data()));
    if (!status.ok()) return status;
  } else {
    std::copy_n(epoch->memory.begin() + number * kWindow, window.groups.size(),
                window.groups.begin());
  }
  if (epoch->windows.size() == kWindows) epoch->windows.pop_front();
  epoch->windows.push_back(std::move(window));
  return &epoch->windows.back();
}

std::vector<uint32_t> ReferenceOrder::shuffled(uint64_t seed) const {
  std::vector<uint32_t> groups(static_cast<size_t>(num_groups()));
  std::iota(groups.begin(), groups.end(), 0);
  numpy_shuffle(seed, num_groups(), groups.data());
  return groups;
}

absl::Status ReferenceOrder::find_or_shuffle(uint64_t seed, Epoch* epoch) const {
  const std::string path =
      absl::StrCat(options_.folder, "/order/", num_groups(), "-groups-seed-", seed, ".u32");
  absl::StatusOr<BlockFile> file = find_or_make(path, [&](BlockWriter* out) {
    const std::vector<uint32_t> groups = shuffled(seed);
    return out->append({reinterpret_cast<const char*>(groups.data()), groups.size() * 4});
  });
  if (!file.ok()) return file.status();
  if (file->size() != num_groups() * 4) {
    return absl::DataLossError(absl::StrCat(path, ": the order of ", file->size() / 4,
                                            " groups; remove it, and it is made anew"));
  }
  epoch->file.emplace(*std::move(file));
  return absl::OkStatus();
}

}  // namespace emo

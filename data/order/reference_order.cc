#include "data/order/reference_order.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "data/files/file_lock.h"
#include "data/files/output.h"
#include "data/order/numpy_shuffle.h"

namespace emo {
namespace {

constexpr int64_t kTargetTokens = 8192;  // the reference's max_target_sequence_length

// A run that begins meanwhile sees all of it or nothing.
absl::Status write_groups(const std::string& path, const std::vector<uint32_t>& groups) {
  absl::StatusOr<std::unique_ptr<WritableFile>> file =
      create_output(posix_file_system(), path, Writing::kStreamed);
  if (!file.ok()) return file.status();
  absl::Status status = (*file)->append(
      {reinterpret_cast<const char*>(groups.data()), groups.size() * sizeof(uint32_t)});
  return status.ok() ? (*file)->close() : status;
}

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
  absl::StatusOr<const uint32_t*> groups = groups_of(1 + index / per_epoch_);
  if (!groups.ok()) return groups.status();
  return static_cast<int64_t>((*groups)[position / options_.group]) * options_.group +
         position % options_.group;
}

absl::StatusOr<const uint32_t*> ReferenceOrder::groups_of(int64_t number) {
  const std::lock_guard lock(mutex_);
  const auto found = epochs_.find(number);
  if (found != epochs_.end()) return found->second.groups;
  Epoch epoch;
  const uint64_t seed = options_.seed + static_cast<uint64_t>(number);
  absl::Status status =
      options_.folder.empty() ? shuffle(seed, &epoch) : find_or_write(seed, &epoch);
  if (!status.ok()) return status;
  // Rows of two epochs meet at a border; older ones are not asked for again.
  while (epochs_.size() > 1) epochs_.erase(epochs_.begin());
  return epochs_.emplace(number, std::move(epoch)).first->second.groups;
}

absl::Status ReferenceOrder::shuffle(uint64_t seed, Epoch* epoch) const {
  epoch->memory.resize(static_cast<size_t>(options_.num_chunks / options_.group));
  std::iota(epoch->memory.begin(), epoch->memory.end(), 0);
  numpy_shuffle(seed, static_cast<int64_t>(epoch->memory.size()), epoch->memory.data());
  epoch->groups = epoch->memory.data();
  return absl::OkStatus();
}

absl::Status ReferenceOrder::find_or_write(uint64_t seed, Epoch* epoch) const {
  const int64_t count = options_.num_chunks / options_.group;
  const std::string path =
      absl::StrCat(options_.folder, "/order-", count, "-groups-seed-", seed, ".u32");
  if (!path_exists(path)) {
    absl::Status status = posix_file_system().make_directories(options_.folder);
    if (!status.ok()) return status;
    // Of many ranks one shuffles, and the others find the file.
    absl::StatusOr<FileLock> lock =
        FileLock::take(options_.folder + "/order.lock", FileLock::Held::kWait);
    if (!lock.ok()) return lock.status();
    if (!path_exists(path)) {
      status = shuffle(seed, epoch);
      if (status.ok()) status = write_groups(path, epoch->memory);
    }
    if (!status.ok()) return status;
    epoch->memory = {};
  }
  absl::StatusOr<MappedFile> file = MappedFile::open(path);
  if (!file.ok()) return file.status();
  if (file->bytes().size() != static_cast<size_t>(count) * sizeof(uint32_t)) {
    return absl::DataLossError(absl::StrCat(path, ": ", file->bytes().size(), " bytes, expected ",
                                            4 * count, "; remove it, and it is made anew"));
  }
  epoch->file = std::make_unique<MappedFile>(*std::move(file));
  epoch->groups = reinterpret_cast<const uint32_t*>(epoch->file->bytes().data());
  return absl::OkStatus();
}

}  // namespace emo

// The order in which the reference trains (emo-facts 3.5): groups of adjacent chunks of one file
// stay together, and numpy shuffles the groups anew for each epoch; what does not fill a whole
// batch at an epoch's end is left out.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/files/block_file.h"

namespace emo {

struct ReferenceOrderOptions {
  int64_t num_chunks = 0;  // a multiple of `group`; groups below 2^32
  int64_t group = 1;       // chunks that stay together; see reference_group()
  int64_t batch = 1;       // sequences of a step
  uint64_t seed = 0;
  std::string folder;  // where shuffled groups are kept, "": in memory
};

// Chunks of S tokens that the reference keeps together: those of max(8192, S) tokens.
int64_t reference_group(int64_t sequence_length);

// Thread-safe. An epoch's groups are shuffled when the first of its sequences is asked for: 4 bytes
// of memory for each group meanwhile, 20 to 50 s for 475 million. With a folder they are then in a
// file that later runs and other ranks find; without, in memory.
class ReferenceOrder {
 public:
  // InvalidArgument where no whole batch of chunks is there.
  static absl::StatusOr<std::unique_ptr<ReferenceOrder>> create(ReferenceOrderOptions options);

  // The chunk of sequence number `index` of the run, which begins with epoch 1. Fails as
  // find_or_make() and BlockFile::read() do. REQUIRES: 0 <= index.
  absl::StatusOr<int64_t> chunk(int64_t index);

  int64_t sequences_per_epoch() const { return per_epoch_; }

 private:
  static constexpr int64_t kWindow = 1 << 14;
  struct Window {
    int64_t number;
    std::vector<uint32_t> groups;  // [kWindow], but the last
  };
  struct Epoch {
    std::vector<uint32_t> memory;  // [num_groups()], or
    std::optional<BlockFile> file;
    std::deque<Window> windows;
  };
  explicit ReferenceOrder(ReferenceOrderOptions options);
  int64_t num_groups() const { return options_.num_chunks / options_.group; }
  absl::StatusOr<Epoch*> epoch_of(int64_t epoch);
  absl::StatusOr<const Window*> window_of(Epoch* epoch, int64_t number) const;
  std::vector<uint32_t> shuffled(uint64_t seed) const;
  absl::Status find_or_shuffle(uint64_t seed, Epoch* epoch) const;

  const ReferenceOrderOptions options_;
  const int64_t per_epoch_;
  std::mutex mutex_;
  std::map<int64_t, Epoch> epochs_;
};

}  // namespace emo

// The order in which the reference trains (emo-facts 3.5): groups of adjacent chunks of one file
// stay together, and numpy shuffles the groups anew for each epoch; what does not fill a whole
// batch at an epoch's end is left out.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/files/file_system.h"

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
// file, mapped, that later runs find; without, in memory.
class ReferenceOrder {
 public:
  // InvalidArgument where no whole batch of chunks is there.
  static absl::StatusOr<std::unique_ptr<ReferenceOrder>> create(ReferenceOrderOptions options);

  // The chunk of sequence number `index` of the run, which begins with epoch 1. Fails where the
  // epoch's file can be neither read nor written, or is damaged. REQUIRES: 0 <= index.
  absl::StatusOr<int64_t> chunk(int64_t index);

  int64_t sequences_per_epoch() const { return per_epoch_; }

 private:
  struct Epoch {
    std::vector<uint32_t> memory;
    std::unique_ptr<MappedFile> file;
    const uint32_t* groups = nullptr;  // [num_chunks / group]
  };
  explicit ReferenceOrder(ReferenceOrderOptions options);
  absl::StatusOr<const uint32_t*> groups_of(int64_t epoch);
  absl::Status shuffle(uint64_t seed, Epoch* epoch) const;
  absl::Status find_or_write(uint64_t seed, Epoch* epoch) const;

  const ReferenceOrderOptions options_;
  const int64_t per_epoch_;
  std::mutex mutex_;
  std::map<int64_t, Epoch> epochs_;
};

}  // namespace emo

// What identifies a file of tokens.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "data/shards/token_file.h"

namespace emo {

// What a run writes down of a file, to see later whether it is the same.
struct DataFile {
  std::string name;  // without its folder
  int64_t tokens = 0;
  // SHA-256, its first 16 characters, of ids at its beginning, middle and end; of a shard of emo
  // prepare then of records at those places.
  std::string sample;
  bool operator==(const DataFile&) const = default;
};

// Those ids, 1024 at each place, as int32.
absl::StatusOr<std::string> sampled_ids(const TokenFile& file);

std::string sample_of(const std::string& bytes);  // DataFile::sample

// Of a file whose sampled ids are `ids`.
DataFile mark_of(const TokenFile& file, const std::string& ids);

}  // namespace emo

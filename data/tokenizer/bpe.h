// Byte-pair encoding of one word (Sennrich et al. 2016, arXiv 1508.07909): of all adjacent pairs
// that have a merge, the one of lowest rank is merged first, the leftmost of equals, until none
// has.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace emo {

class Bpe {
 public:
  // `byte_ids[b]`: the token of the single byte b. REQUIRES: 256 of them where it encodes.
  explicit Bpe(const std::vector<int32_t>& byte_ids) : byte_ids_(byte_ids) {}

  // Merges are added in order of rank. False where the pair has a merge already.
  bool add_merge(int32_t left, int32_t right, int32_t merged);

  // Appends the tokens of `word`. n log n in its length, so a word may be megabytes long.
  void encode(absl::string_view word, std::vector<int32_t>* tokens) const;

 private:
  struct Merge {
    int32_t rank;
    int32_t merged;
  };
  static uint64_t key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  const Merge* find(int32_t left, int32_t right) const;
  void encode_short(absl::string_view word, std::vector<int32_t>* tokens) const;
  void encode_long(absl::string_view word, std::vector<int32_t>* tokens) const;

  std::vector<int32_t> byte_ids_;
  absl::flat_hash_map<uint64_t, Merge> merges_;
};

}  // namespace emo

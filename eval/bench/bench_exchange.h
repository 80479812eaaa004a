// `emo bench exchange`: what moving tokens to their experts and back costs, for pools of several
// sizes, beside the naive path and beside the bare collective.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/files/json.h"
#include "parallel/mesh.h"

namespace emo {

struct ExchangeBenchOptions {
  int64_t tokens = 4096;  // of each rank
  int64_t width = 512;    // D
  int64_t experts = 127;  // E, routed ones
  int64_t top_k = 7;      // K, routed ones
  int64_t document_length = 256;
  std::vector<std::string> pools = {"8", "16", "32", "64", "8-128", "none"};
  int64_t repeats = 15;  // the median counts
  uint64_t seed = 1;
};

// Collective over the mesh, experts spread over all its ranks. Documents prefer experts of their
// own: logits are normal numbers plus a normal number of the document. One object for each pool:
//   copies_per_token, naive_copies_per_token: rows sent to other ranks
//   bytes_per_token, naive_bytes_per_token: the same in bytes, there and back
//   seconds, naive_seconds: rows sent and returned, packed and added up, by both paths
//   bare_seconds: two all_to_all of all rows, a rank's own among them, without packing or adding
//   bare_travelling_seconds: two of the rows that travel alone
//     all of them the slowest rank's median, taken in turns
//   over_bare, over_bare_travelling: seconds over those, the median of pairs
//   rows_max_over_mean: rows on the fullest rank over the mean
// InvalidArgument where a pool or a size is not possible.
absl::StatusOr<OrderedJson> bench_exchange(const Mesh& mesh, const ExchangeBenchOptions& options);

}  // namespace emo

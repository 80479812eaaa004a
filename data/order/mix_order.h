// The order of a mix with weights: every stretch of a run holds as much of each source as its
// weight says, and each source is gone through in an order of its own, epoch by epoch. A position
// says all, so that every world size sees one sequence, and a run goes on anywhere in it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/order/order.h"

namespace emo {

struct WeightedSource {
  std::string label;        // decides, with the seed, its order
  int64_t first_chunk = 0;  // its chunks are these ...
  int64_t chunks = 0;       // ... and as many
  double weight = 0;        // above 0, in proportion to the others'
  double max_epochs = 0;    // 0: no limit
};

// How far a run has come in a source.
struct SourcePosition {
  std::string label;
  int64_t sequences = 0;  // taken from it
  double epochs = 0;      // gone through it
};

// Thread-safe.
class MixOrder {
 public:
  // InvalidArgument where a source has no chunk. REQUIRES: order is kOurs or kSequential.
  static absl::StatusOr<std::unique_ptr<MixOrder>> create(std::vector<WeightedSource> sources,
                                                          Order order, uint64_t seed);

  // The chunk of sequence number `index` of the run, in constant time. REQUIRES: 0 <= index.
  int64_t chunk(int64_t index) const;
  // Where each source is before sequence number `index`.
  std::vector<SourcePosition> positions(int64_t index) const;
  // InvalidArgument that lists the sources of which a run of `sequences` would take more than
  // max_epochs.
  absl::Status check_epochs(int64_t sequences) const;
  // The share of each source, after rounding to 10^-6.
  std::vector<double> shares() const;

 private:
  MixOrder(std::vector<WeightedSource> sources, Order order, uint64_t seed);

  const std::vector<WeightedSource> sources_;
  const Order order_;
  std::vector<uint64_t> seeds_;     // [sources]
  std::vector<int64_t> in_period_;  // [sources] sequences of each in a period
  // A period, over and over: for each of its places a source, and how many places before are of the
  // same. After any number of places each source has had its share of them to less than one
  // (Tijdeman 1980, "The chairman assignment problem").
  std::vector<uint32_t> source_;  // [period]
  std::vector<uint32_t> before_;  // [period]
};

}  // namespace emo

// Batches out of chunks. A batch is a pure function of (source, options, sequence numbers), so the
// loader's whole state is the number of the next sequence, and resuming is exact on any world size.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "data/order/mix_order.h"
#include "data/order/order.h"
#include "data/order/reference_order.h"
#include "data/rows/batch.h"
#include "data/rows/chunk_source.h"
#include "data/rows/instance_filter.h"
#include "data/rows/open_rows.h"

namespace emo {

struct LoaderOptions {
  int64_t sequence_length = 1024;  // S, the one that the source was opened with
  Order order = Order::kOurs;
  uint64_t seed = 0;
  int64_t first_sequence = 0;                           // of the run, where this data begins
  std::shared_ptr<ReferenceOrder> reference = nullptr;  // of Order::kReference
  std::shared_ptr<const MixOrder> mix = nullptr;        // instead, of a mix with weights
  bool document_attention = true;                       // false: attention spans are whole rows
  EosRoutesWith eos_routes_with = EosRoutesWith::kPrevious;
  std::optional<InstanceFilter> filter;  // rows that it hits lose their labels
};

// Sequence numbers, counted over the run: begin, begin + stride, ..., below end.
// 0 <= begin <= end, 1 <= stride.
struct SequenceRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t stride = 1;
  int64_t size() const { return (end - begin + stride - 1) / stride; }
  int64_t operator[](int64_t i) const { return begin + i * stride; }
};

// The part of `range` that `rank` of `world` ranks takes: consecutive, as even as it goes, the
// first ranks one more; empty where there are more ranks than sequences.
// REQUIRES: 0 <= rank < world.
SequenceRange share_of(SequenceRange range, int64_t rank, int64_t world);
// Another way to deal: every world-th, from the rank-th on, as the reference does (emo-facts 3.5).
SequenceRange column_of(SequenceRange range, int64_t rank, int64_t world);

// The order of opened rows, whatever else their options say.
LoaderOptions loader_of(const RowsOptions& options, const Rows& rows);

// The chunk that is sequence number `sequence` of the run. Fails as ReferenceOrder::chunk() does.
absl::StatusOr<int64_t> chunk_of_sequence(const ChunkSource& source, const LoaderOptions& options,
                                          int64_t sequence);

// The rows of `range`, in order; a range behind the last chunk goes on with the next epoch. Fails
// as the source's read and the order do, with the whole batch. Thread-safe. REQUIRES:
// options.sequence_length is the source's S, and rows times S is below 2^31.
absl::StatusOr<Batch> load(const ChunkSource& source, const LoaderOptions& options,
                           SequenceRange range);

}  // namespace emo

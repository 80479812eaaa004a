// Which parameters a run trains; the others are frozen: no update, no decay, no part in the norm.
#pragma once

#include <cstdint>
#include <vector>

#include "model/parameters.h"

namespace emo {

// The freeze modes of the reference's fine-tuning (emo-facts 5.5); each freezes more.
enum class Freeze { kNone, kRouted, kRoutedShared, kRoutedSharedRouter };

struct Span {
  int64_t begin, end;  // floats of a flat buffer
};

// Spans of both buffers that are trained, ascending, apart from each other.
struct TrainedParts {
  std::vector<Span> dense, experts;
  bool selection_biases = true;  // which move by counts alone, so stand in no span
};

// All parameters but those that `freeze` names, of what this rank holds.
TrainedParts trained_parts(const ModelConfig& config, const ParameterLayout& layout, Freeze freeze);

// What is trained of this rank's part of a bucket, counted from the part's first float.
std::vector<Span> trained_of_part(const Sharding& sharding, size_t bucket,
                                  const std::vector<Span>& trained);

// What of `spans`, which ascend, lies in [begin, end).
std::vector<Span> within(const std::vector<Span>& spans, int64_t begin, int64_t end);

}  // namespace emo

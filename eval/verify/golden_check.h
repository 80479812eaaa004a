// `emo check`: does this program compute what a golden folder says? The folder holds a small
// model's weights, a batch, and what an implementation computed from them: losses, router metrics,
// logits, gradients and a few optimizer steps (tests/golden/README.md). Also the way to compare
// with any other implementation.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/mesh.h"
#include "train/config/run_config.h"

namespace emo {

// One line of the report.
struct Comparison {
  std::string what;      // "logits", "gradient model.norm.weight", "step 3 ce_loss", ...
  double deviation = 0;  // the largest, in the unit of `tolerance`
  double tolerance = 0;  //
  std::string unit;      // "relative", "absolute", "of the largest entry"
  bool holds() const { return deviation <= tolerance; }  // false for NaN
};

// How clear the router's choices were in a pass of ours (model/routing_gap.h). In a tie whoever
// made the folder may have chosen otherwise, and then all that comes after differs by more than
// rounding: the folder holds no routing that could be replayed.
struct PassGap {
  std::string pass;  // "first batch", "step 3"
  double gap = 0;    // the smallest, relative
  bool is_tie() const;
};

struct GoldenReport {
  std::vector<Comparison> comparisons;
  std::vector<PassGap> gaps;
};

// Collective. The batch's rows are dealt to ranks as evenly as they go. Losses, metrics, gradients
// and weights are those of training steps, logits and gaps of an inference over the same rows. The
// answer is the same on every rank. Errors as read_golden()'s (golden_folder.h); InvalidArgument
// where an expert group has more ranks than the model has routed experts, or the device, which is
// the mesh's, cannot compute the model.
absl::StatusOr<GoldenReport> check_golden(const std::string& folder, const Mesh& mesh,
                                          DeviceKind device = DeviceKind::kCpu);

}  // namespace emo

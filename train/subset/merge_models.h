// Putting the experts of a cut model, tuned since, back into the model that they were cut from.
#pragma once

#include "absl/status/statusor.h"
#include "train/model_folder/model_files.h"
#include "train/subset/expert_subset.h"

namespace emo {

struct MergeOptions {
  double alpha = 1;     // new = alpha * tuned + (1 - alpha) * parent
  bool router = false;  // also the router rows of the kept experts
  bool shared = false;  // also the shared experts
  bool rest = false;    // also all that is no expert and no router
};

// The parent's tensors with those of `tuned`, a model of the experts `kept`, mixed in; of the
// parent's types. Tensors that are taken over whole and of the same type are not copied. DataLoss
// that lists every tensor which tuned lacks or has in another shape. REQUIRES: `kept` fits
// `config`, the parent's.
absl::StatusOr<TensorFolder> merge_models(TensorFolder parent, TensorFolder tuned,
                                          const ModelConfig& config, const KeptExperts& kept,
                                          const MergeOptions& options);

}  // namespace emo

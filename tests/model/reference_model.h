// The model written the slow and obvious way, with autograd: loops over documents and tokens, one
// matrix product after another, losses as their formulas stand in model/losses.h. What the fast
// path must equal.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "model/transformer.h"

namespace emo {

struct ReferenceResult {
  double cross_entropy = 0;                     // sum over labelled tokens
  std::vector<double> balance, z;               // per MoE layer, unweighted
  std::map<std::string, at::Tensor> gradients;  // by parameter name, fp64
  std::vector<at::Tensor> experts;              // per MoE layer i64 [T, K]
};

// fp64 throughout, on the host. `counted`: C_e and T_c come from this batch alone (scope
// micro_batch, one rank).
ReferenceResult reference_forward_backward(const Model& model, const Slice& batch,
                                           const PassOptions& options, const LossOptions& loss);

}  // namespace emo

#include "model/inference.h"

#include <c10/util/Exception.h>

namespace emo {

PassOptions pass_of(const InferenceOptions& options, const ModelConfig& config, const Mesh& mesh) {
  const auto subsets = static_cast<int64_t>(options.settings.subsets.size());
  TORCH_CHECK(subsets == 0 || subsets == config.n_layers, subsets, " expert subsets for ",
              config.n_layers, " layers");
  PassOptions pass;
  pass.ep = mesh.ep.get();
  pass.settings = options.settings;
  pass.settings.recompute = Recompute::kNone;
  pass.settings.precision = Precision::kFp32;
  pass.want_contributions = options.want_states;
  pass.cache = options.cache;
  return pass;
}

LabelledTokens labelled_tokens(const Slice& slice) {
  LabelledTokens found;
  const auto* label = slice.labels.const_data_ptr<int32_t>();
  for (int64_t t = 0; t < slice.num_tokens(); ++t) {
    if (label[t] < 0) continue;
    found.rows.push_back(t);
    found.labels.push_back(label[t]);
  }
  return found;
}

}  // namespace emo

#include "model/inference.h"

namespace emo {

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

#include "data/rows/batch.h"

#include <algorithm>

namespace emo {

std::vector<int32_t> routing_ends(const std::vector<int32_t>& document_ends,
                                  const std::vector<int32_t>& tokens, int64_t sequence_length,
                                  EosRoutesWith convention, int32_t eos) {
  if (convention == EosRoutesWith::kPrevious) return document_ends;
  std::vector<int32_t> ends;
  const auto count = static_cast<int64_t>(tokens.size());
  for (int64_t t = 1; t <= count; ++t) {
    if (t % sequence_length == 0 || tokens[t] == eos) ends.push_back(static_cast<int32_t>(t));
  }
  return ends;
}

std::vector<int32_t> row_ends(int64_t rows, int64_t sequence_length) {
  std::vector<int32_t> ends;
  for (int64_t row = 1; row <= rows; ++row) {
    ends.push_back(static_cast<int32_t>(row * sequence_length));
  }
  return ends;
}

std::vector<int32_t> next_token_labels(const std::vector<int32_t>& tokens,
                                       int64_t sequence_length) {
  std::vector<int32_t> labels(tokens.size());
  for (size_t row = 0; row < tokens.size(); row += static_cast<size_t>(sequence_length)) {
    const auto* begin = tokens.data() + row;
    auto* to = std::copy(begin + 1, begin + sequence_length, labels.data() + row);
    *to = kIgnoredLabel;
  }
  return labels;
}

}  // namespace emo

// Document scores and pools: the part of the router that looks at whole documents.
#pragma once

#include <cstdint>
#include <vector>

#include "model/config.h"
#include "model/spans.h"

namespace emo {

struct DocumentScores {
  std::vector<double> q;        // [N, E] sum over tokens of the unmasked softmax
  std::vector<double> entropy;  // [N] mean over tokens of its entropy, nats
};

// logits [T, E]; `usable` [E] 1 / 0: experts that the softmax runs over.
DocumentScores score_documents(const std::vector<Piece>& pieces, const int32_t* span_ends,
                               int64_t spans, int64_t E, const float* logits, const float* usable);

// The pools [N, E]: of each document the sizes[d] experts of largest q, ties to the lower index;
// all experts where that is E or more. For top-p pools sizes[d] is set to what the scores ask for.
std::vector<uint8_t> choose_pools(const DocumentScores& scores, int64_t E, const PoolPolicy& policy,
                                  std::vector<int64_t>* sizes);

}  // namespace emo

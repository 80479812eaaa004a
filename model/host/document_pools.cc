#include "model/host/document_pools.h"

#include <algorithm>
#include <numeric>

#include "model/host/router_softmax.h"
#include "model/host/simd.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

// Adds the softmax of each token of a piece to sum [E]; answers the sum of the tokens' entropies.
EMO_SIMD double score_piece(const Piece& piece, int64_t E, const float* logits, const float* usable,
                            float* sum, float* p) {
  double entropies = 0;
  for (int64_t t = piece.begin; t < piece.end; ++t) {
    float entropy = 0;
    softmax(E, logits + t * E, usable, p, &entropy);
    for (int64_t e = 0; e < E; ++e) sum[e] += p[e];
    entropies += entropy;
  }
  return entropies;
}

}  // namespace

DocumentScores score_documents(const std::vector<Piece>& pieces, const int32_t* span_ends,
                               int64_t spans, int64_t E, const float* logits, const float* usable) {
  const auto count = static_cast<int64_t>(pieces.size());
  std::vector<float> sums(count * E, 0.0f);
  std::vector<double> entropies(count);
  parallel_for(count, 2, [&](int64_t begin, int64_t end) {
    std::vector<float> scores_of_token(E);
    for (int64_t p = begin; p < end; ++p) {
      entropies[p] = vectorised<score_piece>(pieces[p], E, logits, usable, sums.data() + p * E,
                                             scores_of_token.data());
    }
  });
  DocumentScores scores{std::vector<double>(spans * E), std::vector<double>(spans)};
  for (int64_t p = 0; p < count; ++p) {
    double* q = scores.q.data() + pieces[p].span * E;
    for (int64_t e = 0; e < E; ++e) q[e] += sums[p * E + e];
    scores.entropy[pieces[p].span] += entropies[p];
  }
  for (int64_t span = 0; span < spans; ++span) {
    scores.entropy[span] /= static_cast<double>(span_ends[span + 1] - span_ends[span]);
  }
  return scores;
}

std::vector<uint8_t> choose_pools(const DocumentScores& scores, int64_t E, const PoolPolicy& policy,
                                  std::vector<int64_t>* sizes) {
  const auto spans = static_cast<int64_t>(sizes->size());
  std::vector<uint8_t> pools(spans * E, 1);
  parallel_for(spans, 8, [&](int64_t begin, int64_t end) {
    std::vector<int32_t> ranked(E);
    for (int64_t span = begin; span < end; ++span) {
      int64_t& size = (*sizes)[span];
      if (policy.kind != PoolPolicy::Kind::kTopP && size >= E) continue;
      const double* q = scores.q.data() + span * E;
      std::iota(ranked.begin(), ranked.end(), 0);
      const auto better = [q](int32_t a, int32_t b) { return q[a] != q[b] ? q[a] > q[b] : a < b; };
      const int64_t sorted = std::min(size, E);
      std::partial_sort(ranked.begin(), ranked.begin() + sorted, ranked.end(), better);
      if (policy.kind == PoolPolicy::Kind::kTopP) {
        const double wanted = policy.top_p * std::accumulate(q, q + E, 0.0);
        double reached = 0;
        int64_t n = 0;
        while (n < sorted && reached < wanted) reached += q[ranked[n++]];
        size = std::clamp(n, std::min(policy.min, E), sorted);
      }
      uint8_t* pool = pools.data() + span * E;
      std::fill_n(pool, E, uint8_t{0});
      for (int64_t i = 0; i < std::min(size, E); ++i) pool[ranked[i]] = 1;
    }
  });
  return pools;
}

}  // namespace emo

#include "model/host/embedding.h"

#include <c10/util/Exception.h>

#include <cstring>

#include "parallel/parallel_for.h"

namespace emo {

void embed(int64_t T, int64_t V, int64_t D, const int32_t* tokens, const float* table, float* x) {
  for (int64_t t = 0; t < T; ++t) {
    TORCH_CHECK(tokens[t] >= 0 && tokens[t] < V, "token ", tokens[t], " with a vocabulary of ", V);
  }
  parallel_for(T, 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      std::memcpy(x + t * D, table + tokens[t] * D, D * sizeof(float));
    }
  });
}

void embed_backward(int64_t T, int64_t D, const int32_t* tokens, const float* dx, float* d_table) {
  // Threads share columns, not tokens: a token may stand in many places.
  parallel_for(D, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = 0; t < T; ++t) {
      float* row = d_table + tokens[t] * D;
      for (int64_t d = begin; d < end; ++d) row[d] += dx[t * D + d];
    }
  });
}

}  // namespace emo

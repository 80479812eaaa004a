// Token embedding: a row of the table for each token.
#pragma once

#include <cstdint>

namespace emo {

// x [T, D]: x_t = table[tokens_t], table [V, D]. Fails where a token is not in [0, V).
void embed(int64_t T, int64_t V, int64_t D, const int32_t* tokens, const float* table, float* x);

// Adds dx [T, D] to the rows of d_table [V, D].
void embed_backward(int64_t T, int64_t D, const int32_t* tokens, const float* dx, float* d_table);

}  // namespace emo

// AdamW (model/adamw.h) and sums of squares, as passes over flat fp32 memory on all threads; the
// same bits with any number of them.
#pragma once

#include <cstdint>

#include "model/adamw.h"

namespace emo {

double sum_of_squares(int64_t count, const float* x);

// Updates parameter, m and v [count] by gradient * scale.
void adamw(const AdamWFactors& factors, float scale, int64_t count, const float* gradient,
           float* parameter, float* m, float* v);

}  // namespace emo

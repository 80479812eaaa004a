// The noise of model/router_jitter.h on the host, on all threads.
#pragma once

#include <cstdint>

#include "model/router_jitter.h"

namespace emo {

// y = x times the noise; Stored [T, D].
template <typename Stored>
void jitter(int64_t T, int64_t D, const Stored* x, const RouterJitter& noise, Stored* y);

// dx += d times the noise; [T, D].
void add_jittered(int64_t T, int64_t D, const float* d, const RouterJitter& noise, float* dx);

}  // namespace emo

// RMSNorm (model/host/rms_norm.h) of queries and of keys, over all heads together and before they
// are rotated, as OLMoE does (Muennighoff et al. 2024, arXiv 2409.02060).
#pragma once

#include <cstdint>
#include <vector>

namespace emo {

struct QkNormWeights {
  float* q = nullptr;  // [D]
  float* k = nullptr;  // [D]
};

// qkv [T, 3 D]: normalises the first D columns by weights.q and the next D by weights.k, in place.
// Keeps for the backward pass what they were, raw [T, 2 D], and reciprocal [T, 2]. Stored: float or
// Bf16.
template <typename Stored>
void qk_norm(int64_t T, int64_t D, const QkNormWeights& weights, float epsilon, Stored* qkv,
             Stored* raw, float* reciprocal);

// d_qkv [T, 3 D]: from the gradients of normalised queries and keys to those of raw ones, in place;
// adds to the gradients of the weights. `partial` is scratch.
template <typename Stored>
void qk_norm_backward(int64_t T, int64_t D, const QkNormWeights& weights, const Stored* raw,
                      const float* reciprocal, Stored* d_qkv, const QkNormWeights& gradients,
                      std::vector<float>* partial);

}  // namespace emo

#include "model/device/kernels/plain_attention.h"

#include <cmath>

#include "model/device/kernel.h"

namespace emo::device {
namespace {

struct Shape {
  int64_t T, D, H, hd;
  float scale;
};

Shape shape_of(const at::Tensor& out, const at::Tensor& logsumexp) {
  const int64_t H = logsumexp.size(1);
  const int64_t hd = out.size(1) / H;
  TORCH_CHECK(hd <= kMostHeadDim, "attention heads of ", hd, ", at most ", kMostHeadDim);
  return {out.size(0), out.size(1), H, hd, 1.0f / sqrtf(static_cast<float>(hd))};
}

template <typename S>
EMO_HOST_DEVICE float dot(const Lanes& lanes, int64_t n, const S* a, const S* b) {
  float sum = 0;
  for (int64_t d = lanes.index(); d < n; d += lanes.count()) {
    sum += static_cast<float>(a[d]) * static_cast<float>(b[d]);
  }
  return lanes.sum(sum);
}

// Where keys lie, each with its value D behind it: rows `stride` apart, of which token t sees those
// from begins[t] on, to ends[t] or, where that is null, to its own.
template <typename S>
struct Keys {
  const S* first;
  int64_t stride;
  const int32_t *begins, *ends;
};

// A row is (token, head); softmax over keys as they come (Milakov and Gimelshein 2018, arXiv
// 1805.02867).
template <typename S>
void forward(const Shape& s, const Keys<S>& keys, const at::Tensor& qkvs, const at::Tensor& outs,
             const at::Tensor& logsumexps) {
  const auto* qkv = qkvs.const_data_ptr<S>();
  auto* out = outs.mutable_data_ptr<S>();
  auto* logsumexp = logsumexps.mutable_data_ptr<float>();
  for_each_row(qkvs.device(), s.T * s.H, [=] EMO_HOST_DEVICE(int64_t row, Lanes lanes) {
    const int64_t t = row / s.H;
    const int64_t column = row % s.H * s.hd;
    const S* q = qkv + t * 3 * s.D + column;
    float sums[kMostHeadDim];  // of this lane's elements
    for (int64_t d = lanes.index(), n = 0; d < s.hd; d += lanes.count(), ++n) sums[n] = 0;
    float largest = -INFINITY;
    float total = 0;
    const int64_t end = keys.ends == nullptr ? t + 1 : keys.ends[t];
    for (int64_t j = keys.begins[t]; j < end; ++j) {
      const S* k = keys.first + j * keys.stride + column;
      const S* v = k + s.D;
      const float score = s.scale * dot(lanes, s.hd, q, k);
      const float higher = fmaxf(largest, score);
      const float keep = expf(largest - higher);
      const float p = expf(score - higher);
      total = total * keep + p;
      for (int64_t d = lanes.index(), n = 0; d < s.hd; d += lanes.count(), ++n) {
        sums[n] = sums[n] * keep + p * static_cast<float>(v[d]);
      }
      largest = higher;
    }
    for (int64_t d = lanes.index(), n = 0; d < s.hd; d += lanes.count(), ++n) {
      out[t * s.D + column + d] = static_cast<S>(sums[n] / total);
    }
    if (lanes.index() == 0) logsumexp[row] = largest + logf(total);
  });
}

// Queries: each adds up over its keys. Keys and values: each adds up over its queries.
template <typename S>
void backward(const Shape& s, const TokenSpans& spans, const at::Tensor& qkvs,
              const at::Tensor& outs, const at::Tensor& logsumexps, const at::Tensor& d_outs,
              const at::Tensor& d_qkvs) {
  const auto* qkv = qkvs.const_data_ptr<S>();
  const auto* out = outs.const_data_ptr<S>();
  const auto* logsumexp = logsumexps.const_data_ptr<float>();
  const auto* d_out = d_outs.const_data_ptr<S>();
  const auto* begins = spans.begin.const_data_ptr<int32_t>();
  const auto* ends = spans.end.const_data_ptr<int32_t>();
  auto* d_qkv = d_qkvs.mutable_data_ptr<S>();
  for_each_row(qkvs.device(), s.T * s.H, [=] EMO_HOST_DEVICE(int64_t row, Lanes lanes) {
    const int64_t t = row / s.H;
    const int64_t column = row % s.H * s.hd;
    const S* q = qkv + t * 3 * s.D + column;
    const S* d_o = d_out + t * s.D + column;
    const float delta = dot(lanes, s.hd, d_o, out + t * s.D + column);
    float sums[kMostHeadDim];
    for (int64_t d = lanes.index(), n = 0; d < s.hd; d += lanes.count(), ++n) sums[n] = 0;
    for (int64_t j = begins[t]; j <= t; ++j) {
      const S* k = qkv + j * 3 * s.D + s.D + column;
      const float p = expf(s.scale * dot(lanes, s.hd, q, k) - logsumexp[row]);
      const float ds = s.scale * p * (dot(lanes, s.hd, d_o, k + s.D) - delta);
      for (int64_t d = lanes.index(), n = 0; d < s.hd; d += lanes.count(), ++n) {
        sums[n] += ds * static_cast<float>(k[d]);
      }
    }
    for (int64_t d = lanes.index(), n = 0; d < s.hd; d += lanes.count(), ++n) {
      d_qkv[t * 3 * s.D + column + d] = static_cast<S>(sums[n]);
    }
  });
  for_each_row(qkvs.device(), s.T * s.H, [=] EMO_HOST_DEVICE(int64_t row, Lanes lanes) {
    const int64_t j = row / s.H;
    const int64_t column = row % s.H * s.hd;
    const S* k = qkv + j * 3 * s.D + s.D + column;
    float d_k[kMostHeadDim];
    float d_v[kMostHeadDim];
    for (int64_t d = lanes.index(), n = 0; d < s.hd; d += lanes.count(), ++n) d_k[n] = d_v[n] = 0;
    for (int64_t t = j; t < ends[j]; ++t) {
      const S* q = qkv + t * 3 * s.D + column;
      const S* d_o = d_out + t * s.D + column;
      const float delta = dot(lanes, s.hd, d_o, out + t * s.D + column);
      const float p = expf(s.scale * dot(lanes, s.hd, q, k) - logsumexp[t * s.H + row % s.H]);
      const float ds = s.scale * p * (dot(lanes, s.hd, d_o, k + s.D) - delta);
      for (int64_t d = lanes.index(), n = 0; d < s.hd; d += lanes.count(), ++n) {
        d_k[n] += ds * static_cast<float>(q[d]);
        d_v[n] += p * static_cast<float>(d_o[d]);
      }
    }
    for (int64_t d = lanes.index(), n = 0; d < s.hd; d += lanes.count(), ++n) {
      S* at = d_qkv + j * 3 * s.D + s.D + column + d;
      at[0] = static_cast<S>(d_k[n]);
      at[s.D] = static_cast<S>(d_v[n]);
    }
  });
}

}  // namespace

void plain_attention(const TokenSpans& spans, const at::Tensor& qkv, const at::Tensor& out,
                     const at::Tensor& logsumexp) {
  const Shape s = shape_of(out, logsumexp);
  with_scalar(qkv.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    const Keys<S> keys{qkv.const_data_ptr<S>() + s.D, 3 * s.D,
                       spans.begin.const_data_ptr<int32_t>(), nullptr};
    forward<S>(s, keys, qkv, out, logsumexp);
  });
}

void cached_attention(const TokenSpans& spans, const at::Tensor& qkv, const at::Tensor& keys_values,
                      const at::Tensor& out, const at::Tensor& logsumexp) {
  const Shape s = shape_of(out, logsumexp);
  with_scalar(qkv.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    const Keys<S> keys{keys_values.const_data_ptr<S>(), 2 * s.D,
                       spans.begin.const_data_ptr<int32_t>(), spans.end.const_data_ptr<int32_t>()};
    forward<S>(s, keys, qkv, out, logsumexp);
  });
}

void plain_attention_backward(const TokenSpans& spans, const at::Tensor& qkv, const at::Tensor& out,
                              const at::Tensor& logsumexp, const at::Tensor& d_out,
                              const at::Tensor& d_qkv) {
  with_scalar(qkv.scalar_type(), [&](auto zero) {
    backward<decltype(zero)>(shape_of(out, logsumexp), spans, qkv, out, logsumexp, d_out, d_qkv);
  });
}

}  // namespace emo::device

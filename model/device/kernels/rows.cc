#include "model/device/kernels/rows.h"

#include "model/device/kernel.h"

namespace emo::device {
namespace {

constexpr int kInFlight = 4;  // packs that a lane reads before it writes the first

template <typename S, int N>
void gather(const at::Tensor& source, const at::Tensor& index_of, int64_t divisor,
            const at::Tensor& target) {
  const int64_t D = target.size(1);
  const auto* from = source.const_data_ptr<S>();
  const auto* index = index_of.const_data_ptr<int32_t>();
  auto* to = target.mutable_data_ptr<S>();
  for_each_row(target.device(), target.size(0), [=] EMO_HOST_DEVICE(int64_t row, Lanes lanes) {
    const int32_t at = index[row];
    const S* there = at < 0 ? nullptr : from + at / divisor * D;
    const int64_t step = lanes.count() * N;
    for (int64_t begin = lanes.index() * N; begin < D; begin += kInFlight * step) {
      Pack<S, N> read[kInFlight];
      for (int n = 0; n < kInFlight; ++n) {
        const int64_t d = begin + n * step;
        read[n] = there != nullptr && d < D ? pack_at<N>(there + d) : Pack<S, N>{};
      }
      for (int n = 0; n < kInFlight; ++n) {
        const int64_t d = begin + n * step;
        if (d < D) pack_at<N>(to + row * D + d) = read[n];
      }
    }
  });
}

template <typename S, int N>
void add(const at::Tensor& source, const at::Tensor& index_of, bool onto,
         const at::Tensor& target) {
  const int64_t D = target.size(1);
  const int64_t K = index_of.size(1);
  const int64_t row_stride = index_of.stride(0);
  const int64_t column_stride = index_of.stride(1);
  const auto* from = source.const_data_ptr<S>();
  const auto* index = index_of.const_data_ptr<int32_t>();
  auto* to = target.mutable_data_ptr<S>();
  for_each_row(target.device(), target.size(0), [=] EMO_HOST_DEVICE(int64_t row, Lanes lanes) {
    const int32_t* index_of_row = index + row * row_stride;
    for (int64_t d = lanes.index() * N; d < D; d += lanes.count() * N) {
      Pack<float, N> sums{};
      Pack<S, N>& result = pack_at<N>(to + row * D + d);
      if (onto) {
        const Pack<S, N> before = result;
        for (int i = 0; i < N; ++i) sums.at[i] = static_cast<float>(before.at[i]);
      }
      for (int64_t k = 0; k < K; ++k) {
        const int64_t at = index_of_row[k * column_stride];
        if (at < 0) continue;
        const Pack<S, N> values = pack_at<N>(from + at * D + d);
        for (int i = 0; i < N; ++i) sums.at[i] += static_cast<float>(values.at[i]);
      }
      Pack<S, N> rounded;
      for (int i = 0; i < N; ++i) rounded.at[i] = static_cast<S>(sums.at[i]);
      result = rounded;
    }
  });
}

}  // namespace

void gather_rows(const at::Tensor& from, const at::Tensor& index, int64_t divisor,
                 const at::Tensor& to) {
  with_packs(to.size(1), {to, from}, [&](auto zero, auto pack) {
    gather<decltype(zero), pack()>(from, index, divisor, to);
  });
}

void add_rows(const at::Tensor& from, const at::Tensor& index, bool onto, const at::Tensor& to) {
  with_packs(to.size(1), {to, from},
             [&](auto zero, auto pack) { add<decltype(zero), pack()>(from, index, onto, to); });
}

}  // namespace emo::device

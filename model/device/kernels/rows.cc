#include "model/device/kernels/rows.h"

#include "model/device/kernel.h"

namespace emo::device {
namespace {

template <typename S>
void gather(const at::Tensor& source, const at::Tensor& index_of, int64_t divisor,
            const at::Tensor& target) {
  const int64_t D = target.size(1);
  const auto* from = source.const_data_ptr<S>();
  const auto* index = index_of.const_data_ptr<int32_t>();
  auto* to = target.mutable_data_ptr<S>();
  for_each(target.device(), target.numel(), [=] EMO_HOST_DEVICE(int64_t i) {
    const int32_t at = index[i / D];
    to[i] = at < 0 ? static_cast<S>(0.0f) : from[at / divisor * D + i % D];
  });
}

template <typename S>
void add(const at::Tensor& source, const at::Tensor& index_of, bool onto,
         const at::Tensor& target) {
  const int64_t D = target.size(1);
  const int64_t K = index_of.size(1);
  const int64_t row_stride = index_of.stride(0);
  const int64_t column_stride = index_of.stride(1);
  const auto* from = source.const_data_ptr<S>();
  const auto* index = index_of.const_data_ptr<int32_t>();
  auto* to = target.mutable_data_ptr<S>();
  for_each(target.device(), target.numel(), [=] EMO_HOST_DEVICE(int64_t i) {
    const int32_t* row = index + i / D * row_stride;
    float sum = onto ? static_cast<float>(to[i]) : 0.0f;
    for (int64_t k = 0; k < K; ++k) {
      const int64_t at = row[k * column_stride];
      if (at >= 0) sum += static_cast<float>(from[at * D + i % D]);
    }
    to[i] = static_cast<S>(sum);
  });
}

}  // namespace

void gather_rows(const at::Tensor& from, const at::Tensor& index, int64_t divisor,
                 const at::Tensor& to) {
  with_scalar(to.scalar_type(),
              [&](auto zero) { gather<decltype(zero)>(from, index, divisor, to); });
}

void add_rows(const at::Tensor& from, const at::Tensor& index, bool onto, const at::Tensor& to) {
  with_scalar(to.scalar_type(), [&](auto zero) { add<decltype(zero)>(from, index, onto, to); });
}

}  // namespace emo::device

// How the device path's functors run: on the CPU in a loop, on a GPU as a CUDA launch on the
// current ATen stream. The body is the same source in both, so that tests without a GPU run what a
// GPU does.
//
// Files in model/device/kernels/ are compiled by the C++ compiler, and where the build has CUDA by
// nvcc instead (launch/cuda_kernels.cmake). A functor is a lambda marked EMO_HOST_DEVICE that
// captures values and raw pointers; it must not be inside a generic lambda (an nvcc rule).
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#ifdef __CUDACC__
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>
#define EMO_HOST_DEVICE __host__ __device__
#else
#define EMO_HOST_DEVICE
#endif

namespace emo::device {

// The threads that work on one row together: a warp on a GPU, one on the CPU. Every lane must reach
// every sum and max.
class Lanes {
 public:
  EMO_HOST_DEVICE Lanes(int index, int count) : index_(index), count_(count) {}
  EMO_HOST_DEVICE int index() const { return index_; }
  EMO_HOST_DEVICE int count() const { return count_; }

  // Over all lanes, the same on each of them, added up in a fixed order.
  template <typename Number>
  EMO_HOST_DEVICE Number sum(Number x) const {
#ifdef __CUDA_ARCH__
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
#endif
    return x;
  }
  EMO_HOST_DEVICE float max(float x) const {
#ifdef __CUDA_ARCH__
    for (int step = 16; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(0xffffffffu, x, step);
      x = x < other ? other : x;
    }
#endif
    return x;
  }
  // The largest value and where it is; equal values: the lowest place.
  EMO_HOST_DEVICE void largest(float* value, int* place) const {
#ifdef __CUDA_ARCH__
    for (int step = 16; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(0xffffffffu, *value, step);
      const int there = __shfl_xor_sync(0xffffffffu, *place, step);
      if (other > *value || (other == *value && there < *place)) {
        *value = other;
        *place = there;
      }
    }
#else
    static_cast<void>(value);
    static_cast<void>(place);
#endif
  }

 private:
  int index_, count_;
};

// The threads that work on one long row together: a block on a GPU, one on the CPU. Every lane must
// reach every sum and max.
class BlockLanes {
 public:
  EMO_HOST_DEVICE BlockLanes(int index, int count, double* scratch)
      : within_(index % 32, count < 32 ? count : 32),
        index_(index),
        count_(count),
        scratch_(scratch) {}
  EMO_HOST_DEVICE int index() const { return index_; }
  EMO_HOST_DEVICE int count() const { return count_; }

  // Over all lanes, the same on each of them, added up in a fixed order.
  template <typename Number>
  EMO_HOST_DEVICE Number sum(Number x) const {
    return over_warps(within_.sum(x), [](Number a, Number b) { return a + b; });
  }
  EMO_HOST_DEVICE float max(float x) const {
    return over_warps(within_.max(x), [](float a, float b) { return a < b ? b : a; });
  }

 private:
  template <typename Number, typename Join>
  EMO_HOST_DEVICE Number over_warps(Number x, const Join& join) const {
#ifdef __CUDA_ARCH__
    auto* of_warps = reinterpret_cast<Number*>(scratch_);
    __syncthreads();  // all have read what the last call left there
    if (within_.index() == 0) of_warps[index_ / 32] = x;
    __syncthreads();
    x = of_warps[0];
    for (int warp = 1; warp < count_ / 32; ++warp) x = join(x, of_warps[warp]);
#else
    static_cast<void>(join);
#endif
    return x;
  }

  Lanes within_;  // the warp
  int index_, count_;
  double* scratch_;  // of the block, a number for each warp
};

// N neighbours in memory, read and written at once.
template <typename S, int N>
struct alignas(N * sizeof(S)) Pack {
  S at[N];
};
template <int N, typename S>
EMO_HOST_DEVICE const Pack<S, N>& pack_at(const S* x) {
  return *reinterpret_cast<const Pack<S, N>*>(x);
}
template <int N, typename S>
EMO_HOST_DEVICE Pack<S, N>& pack_at(S* x) {
  return *reinterpret_cast<Pack<S, N>*>(x);
}

#ifdef __CUDACC__
constexpr int kWarp = 32;
constexpr int kThreads = 256;  // of a block

template <typename F>
__global__ void run_each(int64_t n, F f) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) f(i);
}

template <typename F>
__global__ void run_each_row(int64_t rows, F f) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  if (row < rows) f(row, Lanes(static_cast<int>(threadIdx.x % kWarp), kWarp));
}

template <typename F>
__global__ void run_each_long_row(F f) {
  __shared__ double scratch[kThreads / kWarp];
  f(static_cast<int64_t>(blockIdx.x), BlockLanes(static_cast<int>(threadIdx.x), kThreads, scratch));
}

// Blocks for n items, `each` of them a block.
inline unsigned blocks_for(int64_t n, int64_t each) {
  const int64_t blocks = (n + each - 1) / each;
  TORCH_CHECK(blocks <= INT32_MAX, "a launch of ", n, " items is too large");
  return static_cast<unsigned>(blocks);
}
#endif

inline void refuse_device(at::Device device) {
  TORCH_CHECK(device.is_cpu(), "this program is built without CUDA: no kernels for ", device);
}

// f(i) for i in [0, n), in any order.
template <typename F>
void for_each(at::Device device, int64_t n, const F& f) {
  if (n <= 0) return;
#ifdef __CUDACC__
  if (device.is_cuda()) {
    run_each<<<blocks_for(n, kThreads), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(n, f);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    return;
  }
#endif
  refuse_device(device);
  for (int64_t i = 0; i < n; ++i) f(i);
}

// f(row, lanes) for every row in [0, rows); the lanes share the row's elements:
//   for (i = lanes.index(); i < elements; i += lanes.count())
template <typename F>
void for_each_row(at::Device device, int64_t rows, const F& f) {
  if (rows <= 0) return;
#ifdef __CUDACC__
  if (device.is_cuda()) {
    run_each_row<<<blocks_for(rows, kThreads / kWarp), kThreads, 0,
                   c10::cuda::getCurrentCUDAStream()>>>(rows, f);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    return;
  }
#endif
  refuse_device(device);
  for (int64_t row = 0; row < rows; ++row) f(row, Lanes(0, 1));
}

// The same with BlockLanes, for rows so long or so few that warps would leave the GPU idle.
template <typename F>
void for_each_long_row(at::Device device, int64_t rows, const F& f) {
  if (rows <= 0) return;
#ifdef __CUDACC__
  if (device.is_cuda()) {
    run_each_long_row<<<blocks_for(rows, 1), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(f);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    return;
  }
#endif
  refuse_device(device);
  for (int64_t row = 0; row < rows; ++row) f(row, BlockLanes(0, 1, nullptr));
}

// Calls f(S()) with the C++ type of activations and parameters: float or BFloat16.
template <typename F>
void with_scalar(at::ScalarType type, const F& f) {
  if (type == at::kFloat) return f(float());
  TORCH_CHECK(type == at::kBFloat16, "the device path computes in fp32 or bf16, not ", type);
  f(c10::BFloat16());
}

constexpr int kPack = 8;

// Calls f(S(), N) where N, an std::integral_constant, is how many elements go into a Pack: kPack
// where the rows of all these matrices, each a multiple of `width` wide, begin at multiples of it;
// else 1.
template <typename F>
void with_packs(int64_t width, std::initializer_list<at::Tensor> matrices, const F& f) {
  const at::ScalarType type = matrices.begin()->scalar_type();
  const bool wide = std::all_of(matrices.begin(), matrices.end(), [&](const at::Tensor& m) {
    const auto bytes = static_cast<uintptr_t>(kPack * m.element_size());
    return width % kPack == 0 && reinterpret_cast<uintptr_t>(m.const_data_ptr()) % bytes == 0;
  });
  with_scalar(type, [&](auto zero) {
    if (wide) {
      f(zero, std::integral_constant<int, kPack>());
    } else {
      f(zero, std::integral_constant<int, 1>());
    }
  });
}

// The elements of a tensor, or null where it is not defined.
template <typename S>
S* data_or_null(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data_ptr<S>() : nullptr;
}

}  // namespace emo::device

#include "model/host/fp32_product.h"

#include <c10/util/Exception.h>
#include <dlfcn.h>

#include "model/host/instruction_set.h"
#include "model/host/transpose.h"
#include "model/host/workspace.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

// BLAS, column-major; libtorch exports MKL's.
extern "C" void sgemm_(const char* trans_a, const char* trans_b, const int* m, const int* n,
                       const int* k, const float* alpha, const float* a, const int* lda,
                       const float* b, const int* ldb, const float* beta, float* c, const int* ldc);
// MKL's threads for calls from the calling thread.
extern "C" int MKL_Set_Num_Threads_Local(int threads);
// The threads of OpenMP, and so of oneDNN, for calls from the calling thread.
extern "C" void omp_set_num_threads(int threads);

namespace emo {
namespace {

// Threads are the pool's: a library computes each product on the thread that asks for it.
void keep_to_this_thread(Fp32Library library) {
  if (library == Fp32Library::kMkl) {
    thread_local const int previous = MKL_Set_Num_Threads_Local(1);
    static_cast<void>(previous);
  } else {
    thread_local const bool done = (omp_set_num_threads(1), true);
    static_cast<void>(done);
  }
}

// oneDNN's sgemm, row-major. libtorch contains a part of another version: linked by name, the two
// would share what they define both, and compute nothing. RTLD_DEEPBIND keeps them apart.
using OneDnnSgemm = int (*)(char trans_a, char trans_b, int64_t m, int64_t n, int64_t k,
                            float alpha, const float* a, int64_t lda, const float* b, int64_t ldb,
                            float beta, float* c, int64_t ldc);
OneDnnSgemm load_one_dnn() {
  void* library = dlopen("libdnnl.so.2", RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
  void* found = library != nullptr ? dlsym(library, "dnnl_sgemm") : nullptr;
  TORCH_CHECK(found != nullptr, "oneDNN computes fp32 products on this CPU: ", dlerror(),
              "; launch/setup.sh installs it (libdnnl2)");
  return reinterpret_cast<OneDnnSgemm>(found);
}

// oneDNN packs what it multiplies in large products; small ones by columns it computes at three
// quarters of the rate of those by rows. There a B of columns is turned over first, where that
// stays in the second-level cache and enough rows share it.
constexpr int64_t kMostTurned = 512 * padded_stride(512);  // entries
constexpr int64_t kFewestRows = 32;

void one_dnn_product(char op_a, char op_b, int64_t m, int64_t n, int64_t k, ConstMatrixView a,
                     ConstMatrixView b, float beta, MatrixView c) {
  static const OneDnnSgemm sgemm = load_one_dnn();
  const int64_t stride = padded_stride(n);
  if (op_b == 'T' && m >= kFewestRows && k * stride <= kMostTurned) {
    thread_local Workspace workspace;
    auto* turned = workspace.get<float>(k * stride);
    transpose(n, k, b, {turned, stride});
    b = {turned, stride};
    op_b = 'N';
  }
  const int failed =
      sgemm(op_a, op_b, m, n, k, 1, a.data, a.stride, b.data, b.stride, beta, c.data, c.stride);
  TORCH_CHECK(failed == 0, "oneDNN refuses a product of ", m, " x ", n, " x ", k, ": ", failed);
}

#if defined(__x86_64__)
// As CPUID counts: 25 is Zen 3 and 4, 26 Zen 5.
unsigned cpu_family() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return 0;
  const unsigned base = eax >> 8 & 0xF;
  return base == 0xF ? base + (eax >> 20 & 0xFF) : base;
}
bool amd_with_wide_avx512() {
  return instruction_set() == InstructionSet::kAvx512 && __builtin_cpu_is("amd") != 0 &&
         cpu_family() >= 26;
}
#else
bool amd_with_wide_avx512() { return false; }
#endif

}  // namespace

Fp32Library fp32_library() {
  static const Fp32Library library =
      amd_with_wide_avx512() ? Fp32Library::kOneDnn : Fp32Library::kMkl;
  return library;
}

const char* fp32_library_name(Fp32Library library) {
  return library == Fp32Library::kMkl ? "MKL" : "oneDNN";
}

void fp32_product(Fp32Library library, char op_a, char op_b, int64_t m, int64_t n, int64_t k,
                  ConstMatrixView a, ConstMatrixView b, float beta, MatrixView c) {
  keep_to_this_thread(library);
  if (library == Fp32Library::kOneDnn) {
    one_dnn_product(op_a, op_b, m, n, k, a, b, beta, c);
    return;
  }
  // The column-major product of the transposes, in reverse order.
  const int rows = static_cast<int>(n);
  const int columns = static_cast<int>(m);
  const float alpha = 1;
  const int inner = static_cast<int>(k);
  const int lda = static_cast<int>(a.stride);
  const int ldb = static_cast<int>(b.stride);
  const int ldc = static_cast<int>(c.stride);
  sgemm_(&op_b, &op_a, &rows, &columns, &inner, &alpha, b.data, &ldb, a.data, &lda, &beta, c.data,
         &ldc);
}

}  // namespace emo

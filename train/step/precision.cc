#include "train/step/precision.h"

#include <ATen/ops/from_blob.h>

#include <cstdio>

#include "model/host/bf16_kernel.h"
#include "model/host/bf16_product.h"
#include "model/host/fp32_product.h"

namespace emo {

const char* precision_name(Precision precision) {
  return precision == Precision::kBf16 ? "bf16" : "fp32";
}

const char* products_by(const RunConfig& config) {
  if (config.parallel.device != DeviceKind::kCpu) return "libtorch";
  if (config.parallel.precision == Precision::kBf16) return bf16_kernel().name;
  return fp32_library_name(fp32_library());
}

Precision choose_precision(const RunConfig& config, const Mesh& mesh) {
  const Precision wanted = config.parallel.precision;
  if (wanted == Precision::kFp32 || config.parallel.device != DeviceKind::kCpu) return wanted;
  int64_t without = cpu_has_bf16_products() ? 0 : 1;
  mesh.world->all_reduce(at::from_blob(&without, {1}, at::kLong), ReduceOp::kSum);
  if (without == 0) return wanted;
  if (mesh.is_first()) {
    std::fprintf(
        stderr,
        "emo: parallel.precision is bf16, the CPU of %lld of %lld ranks has no AVX512_BF16 "
        "instructions: going on in fp32\n",
        static_cast<long long>(without), static_cast<long long>(mesh.world->size()));
  }
  return Precision::kFp32;
}

}  // namespace emo

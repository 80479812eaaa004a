// In what precision a run computes on the machines that it got.
#pragma once

#include "model/host/bf16.h"
#include "parallel/mesh.h"
#include "train/config/run_config.h"

namespace emo {

const char* precision_name(Precision precision);  // "fp32", "bf16"

// Who computes the matrix products of a run on this rank: "MKL" or "oneDNN"
// (model/host/fp32_product.h), "AVX512_BF16" or "plain loops" (model/host/bf16_product.h),
// "libtorch" on a device.
const char* products_by(const RunConfig& config);

// Collective. What the config wants; on the CPU fp32 where a rank's CPU has no bf16 products
// (model/host/bf16_product.h): ranks exchange rows, so all store them alike. Then the first rank
// says so on one line.
Precision choose_precision(const RunConfig& config, const Mesh& mesh);

}  // namespace emo

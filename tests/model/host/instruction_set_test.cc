#include "model/host/instruction_set.h"

#include <ATen/Version.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "model/host/bf16_product.h"
#include "model/host/fp32_product.h"
#include "model/host/simd.h"

namespace emo {
namespace {

// Sets EMO_ISA for as long as it lives.
class Wanted {
 public:
  explicit Wanted(const char* name) {
    const char* before = std::getenv("EMO_ISA");
    if (before != nullptr) before_ = before;
    was_set_ = before != nullptr;
    setenv("EMO_ISA", name, 1);
  }
  ~Wanted() {
    if (was_set_) {
      setenv("EMO_ISA", before_.c_str(), 1);
    } else {
      unsetenv("EMO_ISA");
    }
  }

 private:
  std::string before_;
  bool was_set_ = false;
};

TEST(InstructionSet, IsTheOneAskedFor) {
  const InstructionSet before = instruction_set();
  const char* wanted = std::getenv("EMO_ISA");
  EXPECT_STREQ(instruction_set_name(before),
               wanted != nullptr && *wanted != 0 ? wanted : instruction_set_name(before));
  const Wanted portable("portable");
  EXPECT_EQ(instruction_set(), before) << "it changed while the process ran";
}

TEST(InstructionSet, RefusesOtherNames) {
  for (const char* name : {"sse", "AVX2", " avx2"}) {
    const Wanted wanted(name);
    const absl::Status status = choose_instruction_set();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find("expected portable, avx2 or avx512"), std::string::npos);
  }
}

TEST(InstructionSet, HoldsTheProductsToo) {
  if (instruction_set() == InstructionSet::kAvx512) return;  // then the CPU's maker decides
  EXPECT_EQ(fp32_library(), Fp32Library::kMkl);
  EXPECT_STREQ(bf16_kernel().name, plain_bf16_kernel().name);
  EXPECT_FALSE(cpu_has_bf16_products());
}

TEST(InstructionSet, HoldsLibtorchToo) {
  const std::string expected = std::map<InstructionSet, std::string>{
      {InstructionSet::kPortable, "DEFAULT"},
      {InstructionSet::kAvx2, "AVX2"},
      {InstructionSet::kAvx512,
       "AVX512"}}.at(instruction_set());
  EXPECT_EQ(at::get_cpu_capability(), expected);
}

// A row's exponentials, and their sum.
EMO_SIMD float exponentiate(int64_t count, const float* x, float* y) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) {
    y[i] = fast_exp(x[i]);
    sum += y[i];
  }
  return sum;
}

TEST(Vectorised, AgreesWithPlainLoopsToRounding) {
  std::mt19937_64 random(4);
  std::normal_distribution<float> normal(0, 5);
  std::vector<float> x(1003), plain(1003), fast(1003);
  for (float& value : x) value = normal(random);
  const auto count = static_cast<int64_t>(x.size());
  const float* from = x.data();
  const float plain_sum = run_portably<exponentiate>(count, from, plain.data());
  const float fast_sum = vectorised<exponentiate>(count, from, fast.data());
  EXPECT_NEAR(fast_sum, plain_sum, 1e-5f * plain_sum);
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_NEAR(plain[i], std::exp(static_cast<double>(x[i])), 4e-7 * plain[i]);
    EXPECT_NEAR(fast[i], plain[i], 4e-7f * plain[i]);
  }
}

}  // namespace
}  // namespace emo

#include "model/host/instruction_set.h"

#include <c10/util/Exception.h>

#include <cstdlib>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace emo {
namespace {

constexpr InstructionSet kAll[] = {InstructionSet::kPortable, InstructionSet::kAvx2,
                                   InstructionSet::kAvx512};

InstructionSet best_of_cpu() {
#ifdef EMO_SEVERAL_INSTRUCTION_SETS
  if (__builtin_cpu_supports("x86-64-v4") != 0) return InstructionSet::kAvx512;
  if (__builtin_cpu_supports("x86-64-v3") != 0) return InstructionSet::kAvx2;
#endif
  return InstructionSet::kPortable;
}

const char* wanted_name() {
  const char* name = std::getenv("EMO_ISA");
  return name != nullptr ? name : "";
}

absl::StatusOr<InstructionSet> chosen() {
  const std::string_view name = wanted_name();
  const InstructionSet best = best_of_cpu();
  if (name.empty()) return best;
  for (const InstructionSet set : kAll) {
    if (name != instruction_set_name(set)) continue;
    if (set <= best) return set;
    return absl::InvalidArgumentError(absl::StrCat("EMO_ISA=", wanted_name(), ": this CPU has ",
                                                   instruction_set_name(best),
                                                   " at most; unset EMO_ISA to use what it has"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("EMO_ISA=", wanted_name(), ": expected portable, avx2 or avx512"));
}

// Libraries read their limits from the environment, at their first call.
void limit_libraries(InstructionSet set) {
  const auto limit = [](const char* name, const char* value) { setenv(name, value, 1); };
  switch (set) {
    case InstructionSet::kPortable:
      limit("ATEN_CPU_CAPABILITY", "default");  // libtorch's own loops
      limit("ONEDNN_MAX_CPU_ISA", "SSE41");     // the oneDNN inside libtorch
      limit("MKL_CBWR", "COMPATIBLE");          // the only limit that MKL heeds on AMD's CPUs too
      break;
    case InstructionSet::kAvx2:
      limit("ATEN_CPU_CAPABILITY", "avx2");
      limit("ONEDNN_MAX_CPU_ISA", "AVX2");
      limit("MKL_ENABLE_INSTRUCTIONS", "AVX2");  // on AMD's CPUs it uses no more anyway
      break;
    case InstructionSet::kAvx512:  // there is no more to be had
      break;
  }
}

}  // namespace

const char* instruction_set_name(InstructionSet set) {
  switch (set) {
    case InstructionSet::kPortable:
      return "portable";
    case InstructionSet::kAvx2:
      return "avx2";
    case InstructionSet::kAvx512:
      break;
  }
  return "avx512";
}

absl::Status choose_instruction_set() {
  const absl::StatusOr<InstructionSet> set = chosen();
  if (!set.ok() || *wanted_name() == '\0') return set.status();
  limit_libraries(*set);
  return absl::OkStatus();
}

InstructionSet read_instruction_set() {
  const absl::StatusOr<InstructionSet> set = chosen();
  TORCH_CHECK(set.ok(), std::string(set.status().message()));
  return *set;
}

}  // namespace emo

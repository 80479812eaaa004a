// Which instructions the loops and the libraries of products may use: what the CPU has, or less
// where the environment variable EMO_ISA says so, to imitate an older machine.
#pragma once

#include "absl/status/status.h"

// x86-64 has several; clang, which only analyses this code (launch/tidy.sh), sees the plain loops.
#if defined(__x86_64__) && !defined(__clang__)
#define EMO_SEVERAL_INSTRUCTION_SETS
#endif

namespace emo {

enum class InstructionSet {
  kPortable,  // what every CPU of the build's architecture has: on x86-64, SSE2
  kAvx2,      // with FMA: x86-64-v3
  kAvx512,    // x86-64-v4, and AVX512_BF16 where the CPU has that too
};
const char* instruction_set_name(InstructionSet set);  // EMO_ISA's: "portable", "avx2", "avx512"

// Reads EMO_ISA and holds libtorch and MKL to it. InvalidArgument where it names no instruction
// set, or more than this CPU has: falling back would give other bits than were asked for.
// REQUIRES: before the process's first tensor and its first thread. A program that leaves it out
// holds only our own loops and our choice of library to EMO_ISA, and fails where that is wrong.
absl::Status choose_instruction_set();

// The process's choice, for as long as it runs. Inline, because loops over single rows ask for it.
InstructionSet read_instruction_set();
inline InstructionSet instruction_set() {
  static const InstructionSet set = read_instruction_set();
  return set;
}

}  // namespace emo

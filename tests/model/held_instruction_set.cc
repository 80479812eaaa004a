// Part of every test program that computes: EMO_ISA holds libtorch and MKL there too, as
// launch/emo.cc has it in the program.
#include <gtest/gtest.h>

#include "model/host/instruction_set.h"

namespace emo {
namespace {

class HeldInstructionSet : public ::testing::Environment {
  void SetUp() override {
    const absl::Status chosen = choose_instruction_set();
    ASSERT_TRUE(chosen.ok()) << chosen.message();
  }
};
const auto* const held = ::testing::AddGlobalTestEnvironment(new HeldInstructionSet);

}  // namespace
}  // namespace emo

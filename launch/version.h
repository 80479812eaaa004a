// What `emo --version` prints: the release, and how this process computes.
#pragma once

#include <string>

namespace emo {

// A line each: version, instruction set, library of fp32 products, kernel of bf16 products.
// REQUIRES: choose_instruction_set() (model/host/instruction_set.h) was called.
std::string version_text();

}  // namespace emo

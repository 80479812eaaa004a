// The operations of a model (model/backend.h) on the CPU: fp32 parameters and residual stream; what
// products read in fp32 or bf16, as the pass says.
//
// Rows of a rank's own tokens are neither copied nor sent: experts read them, and add to them,
// where the tokens are. Memory stays from pass to pass: a fresh page costs more than the arithmetic
// on it.
#pragma once

#include <memory>

#include "model/backend.h"

namespace emo {

std::shared_ptr<Backend> host_backend();

}  // namespace emo

// Sizes of document pools as an option of a command says them.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "model/config.h"

namespace emo {

// "none", "N" or "MIN-MAX", sizes at least `top_k` (routed experts of a token). InvalidArgument
// naming the text otherwise.
absl::StatusOr<PoolPolicy> parse_pool(const std::string& text, int64_t top_k);

}  // namespace emo

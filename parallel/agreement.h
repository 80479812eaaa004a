// Errors that only some ranks see, told to all.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "parallel/communicator.h"

namespace emo {

// Collective. OK where every rank passes OK; else, on every rank, the error of the first rank that
// has one; Cancelled only where no rank has another.
absl::Status agree(Communicator& world, const absl::Status& status);

// Collective. The texts of all ranks, in order of ranks.
std::vector<std::string> gather_texts(Communicator& world, const std::string& text);

}  // namespace emo

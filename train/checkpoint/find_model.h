// The model that a path means: a run's folder stands for its newest checkpoint.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace emo {

// `path` itself where it holds a config.json, a model folder; else the newest complete checkpoint
// of the run whose folder it is. NotFound where it is neither. While a run goes on two calls may
// answer two checkpoints.
absl::StatusOr<std::string> find_model(const std::string& path);

// What --help says of an argument that find_model takes.
inline constexpr char kModelHelp[] = "model folder, or a run's folder: its newest checkpoint";

}  // namespace emo

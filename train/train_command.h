// `emo train`, see trainer.h.
#pragma once

#include <functional>

#include "data/program/command.h"
#include "train/trainer.h"

namespace emo {

// `observe` makes what looks at the model while it trains, from the config; collective.
using ObserverFactory =
    std::function<absl::StatusOr<Observer>(const RunConfig& config, const Mesh& mesh)>;

Command train_command(ObserverFactory observe);

}  // namespace emo

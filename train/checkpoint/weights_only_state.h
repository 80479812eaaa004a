// state.json of a folder that holds a model and no training state: one that was imported or cut.
#pragma once

#include <string>

#include "train/model_folder/model_description.h"

namespace emo {

// Step 0, and what a run that starts from there is compared with: nothing but the routing contract.
// `from`: where the model came from.
std::string weights_only_state(const std::string& from, const ModelDescription& description);

}  // namespace emo

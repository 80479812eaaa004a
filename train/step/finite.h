// Whether numbers are numbers: what no run may save and no evaluation may begin with.
#pragma once

#include <string>

#include "model/parameters.h"

namespace emo {

// Local. The first tensor of these buffers, whole and of this layout, that is not finite; "" where
// all are.
std::string first_bad_tensor(const ParameterLayout& layout, const FlatBuffers& buffers);

}  // namespace emo

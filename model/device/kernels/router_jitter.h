// The noise of model/router_jitter.h on the device. Of one type, [T, D].
#pragma once

#include <ATen/core/Tensor.h>

#include "model/router_jitter.h"

namespace emo::device {

void jitter(const at::Tensor& x, const RouterJitter& noise, const at::Tensor& y);  // y = x * noise
void add_jittered(const at::Tensor& d, const RouterJitter& noise, const at::Tensor& dx);  // +=

}  // namespace emo::device

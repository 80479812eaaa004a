// The router (model/router.h) on a device, a kernel for each quantity; nothing waits for the
// device.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/router.h"

namespace emo::device {

// As Backend::route. input.pool_sizes is not changed.
Routing route(const RouterInput& input, const RoutingContract& contract);

// d_logits f32 [T, E]; as Backend::route_backward.
at::Tensor route_backward(const RouterInput& input, const RoutingContract& contract,
                          const Routing& routing, const at::Tensor& d_weights,
                          const at::Tensor& balance, float z);

}  // namespace emo::device

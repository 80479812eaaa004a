// The router (model/router.h) on the host: for each token one pass over its logits, from softmax to
// choice to sums, while they are in registers and the first cache; not the sequence of kernels that
// a device runs, which would read and write them five times.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/router.h"

namespace emo {

// As Backend::route and Backend::route_backward. On all threads; the result does not depend on
// their number. Of input.spans the ends are read.
void route(const RouterInput& input, const RoutingContract& contract, Routing* routing);
void route_backward(const RouterInput& input, const RoutingContract& contract,
                    const Routing& routing, const at::Tensor& d_weights, const at::Tensor& balance,
                    float z, at::Tensor* d_logits);

}  // namespace emo

// The balance loss and what a step adds up of its routers, on the host (model/losses.h).
#pragma once

#include <ATen/core/Tensor.h>

#include "model/router.h"

namespace emo {

// As the Backend's operations of these names.
void balance_gradient(const at::Tensor& counts, const at::Tensor& tokens, int64_t top_k,
                      double divisor, at::Tensor* gradient);
void document_balance_gradient(const Routing& routing, double divisor, at::Tensor* gradient);
void add_router_sums(const Routing& routing, const RoutingContract& contract,
                     const at::Tensor& balance, const at::Tensor& z_labels, const at::Tensor& sums);

}  // namespace emo

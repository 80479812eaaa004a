// What the experts of a rank say of a row, one result for each pair of row and expert, added up.
#pragma once

#include <ATen/core/Tensor.h>

#include "parallel/expert_exchange.h"

namespace emo {

// Stored, float or Bf16, is the type of `pair_rows` [Q, D]. Sums are fp32, in a fixed order.

// out Stored [R - own_rows, D]: the sum for each row that arrived.
template <typename Stored>
void sum_arrived_rows(const ExchangePlan& plan, const at::Tensor& pair_rows, const at::Tensor& out);

// tokens f32 [T, D]: adds the sum for each own row to its token.
template <typename Stored>
void add_own_rows(const ExchangePlan& plan, const at::Tensor& pair_rows, const at::Tensor& tokens);

}  // namespace emo

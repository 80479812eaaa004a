#include "model/backend.h"

#include <ATen/ops/empty.h>

namespace emo {

LayerPlacement make_layer_placement(const ExpertPlacement& placement, at::Device device) {
  if (placement.order.empty()) return {placement, {}};
  const at::Tensor position_of =
      at::empty({placement.experts}, at::TensorOptions().dtype(at::kInt));
  for (int64_t position = 0; position < placement.experts; ++position) {
    position_of.mutable_data_ptr<int32_t>()[placement.expert_at(position)] =
        static_cast<int32_t>(position);
  }
  return {placement, to_device(position_of, device)};
}

}  // namespace emo

#include "train/optimizer/selection_bias.h"

#include <c10/util/Exception.h>

#include <algorithm>

namespace emo {
namespace {

int64_t offset_of(const ParameterLayout& layout, const std::string& name) {
  const auto found = std::find_if(layout.parameters.begin(), layout.parameters.end(),
                                  [&](const ParameterInfo& p) { return p.name == name; });
  TORCH_CHECK(found != layout.parameters.end(), "no parameter ", name);
  return found->offset;
}

}  // namespace

void update_selection_bias(int64_t layer, const at::Tensor& counts, const BiasUpdate& update,
                           Model* model, OptimizerState* state) {
  const Sharding& sharding = model->layout.dense;
  const size_t bucket = layer_bucket(layer);
  const int64_t offset = offset_of(model->layout, selection_bias_name(layer));
  const int64_t part = sharding.part_begin(bucket);
  const std::vector<Span> owned =
      within({{offset, offset + counts.size(0)}}, part, part + sharding.part_size(bucket));
  if (owned.empty()) return;
  const auto [begin, end] = owned.front();
  const at::Tensor moved = counts.mean()
                               .sub(counts)
                               .sign()
                               .mul(update.rate)
                               .to(at::kFloat)
                               .mul(update.control[1])
                               .slice(0, begin - offset, end - offset);
  const at::Tensor parameter = model->parameters.dense.slice(0, begin, end);
  if (!state->master.dense.defined()) {
    parameter.add_(moved);
    return;
  }
  const int64_t first = sharding.begin_in(bucket, state->master.dense) + begin - part;
  const at::Tensor master = state->master.dense.slice(0, first, first + end - begin);
  master.add_(moved);
  parameter.copy_(master);
}

}  // namespace emo

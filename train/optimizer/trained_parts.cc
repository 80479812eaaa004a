#include "train/optimizer/trained_parts.h"

#include <algorithm>

#include "train/model_folder/moe_tensor_name.h"

namespace emo {
namespace {

bool is_frozen(const ModelConfig& config, const ParameterInfo& parameter, Freeze freeze) {
  if (is_selection_bias(parameter.name)) return true;  // has no gradient
  if (freeze == Freeze::kNone) return false;
  if (parameter.buffer == ParameterBuffer::kExperts) return true;
  const std::optional<MoeTensorName> name = parse_moe_tensor_name(parameter.name);
  if (!name || config.is_dense(name->layer)) return false;
  return freeze == Freeze::kRoutedSharedRouter ||
         (freeze == Freeze::kRoutedShared && name->expert.has_value());
}

// Adds the padding behind a parameter to it, so that spans join: it is zero, whoever passes it.
std::vector<Span> spans_of(const ModelConfig& config, const ParameterLayout& layout,
                           ParameterBuffer buffer, int64_t size, Freeze freeze) {
  std::vector<Span> spans;
  std::vector<const ParameterInfo*> parameters;
  for (const ParameterInfo& parameter : layout.parameters) {
    if (parameter.buffer == buffer) parameters.push_back(&parameter);
  }
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (is_frozen(config, *parameters[i], freeze)) continue;
    const int64_t begin = parameters[i]->offset;
    const int64_t end = i + 1 < parameters.size() ? parameters[i + 1]->offset : size;
    if (!spans.empty() && spans.back().end == begin) {
      spans.back().end = end;
    } else {
      spans.push_back({begin, end});
    }
  }
  return spans;
}

}  // namespace

TrainedParts trained_parts(const ModelConfig& config, const ParameterLayout& layout,
                           Freeze freeze) {
  return {spans_of(config, layout, ParameterBuffer::kDense, layout.dense.size(), freeze),
          spans_of(config, layout, ParameterBuffer::kExperts, layout.experts.size(), freeze),
          freeze != Freeze::kRoutedSharedRouter};
}

std::vector<Span> trained_of_part(const Sharding& sharding, size_t bucket,
                                  const std::vector<Span>& trained) {
  const int64_t part = sharding.part_begin(bucket);
  std::vector<Span> spans = within(trained, part, part + sharding.part_size(bucket));
  for (Span& span : spans) span = {span.begin - part, span.end - part};
  return spans;
}

std::vector<Span> within(const std::vector<Span>& spans, int64_t begin, int64_t end) {
  std::vector<Span> inside;
  for (const Span& span : spans) {
    const Span cut{std::max(span.begin, begin), std::min(span.end, end)};
    if (cut.begin < cut.end) inside.push_back(cut);
  }
  return inside;
}

}  // namespace emo

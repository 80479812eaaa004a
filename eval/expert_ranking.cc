#include "eval/expert_ranking.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/closest_name.h"

namespace emo {

absl::StatusOr<int32_t> find_label(const TokenDataset& data, const std::string& label) {
  const std::vector<std::string>& labels = data.info().sources;
  const auto found = std::find(labels.begin(), labels.end(), label);
  if (found != labels.end()) return static_cast<int32_t>(found - labels.begin());
  return absl::InvalidArgumentError(absl::StrCat(data.folder(), ": no documents have the label '",
                                                 label, "'", did_you_mean(label, labels),
                                                 " Labels: ", absl::StrJoin(labels, ", ")));
}

absl::StatusOr<std::vector<std::vector<double>>> router_scores(const OpenedModel& model,
                                                               const Mesh& mesh,
                                                               const TokenDataset& data,
                                                               int32_t source, PassMemory* memory) {
  EvalOptions options;
  options.sequence_length = model.description.max_positions;
  options.sources = {source};
  options.pool.kind = PoolPolicy::Kind::kNone;
  options.want_probability = true;
  absl::StatusOr<EvalResult> result = evaluate(*model.model, mesh, data, options, memory);
  if (!result.ok()) return result.status();
  return result->router_probability;
}

}  // namespace emo

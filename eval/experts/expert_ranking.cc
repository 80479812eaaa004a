#include "eval/experts/expert_ranking.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/program/closest_name.h"

namespace emo {

absl::StatusOr<int32_t> find_label(const TokenDataset& data, const std::string& label) {
  const std::vector<std::string>& labels = data.info().sources;
  const auto found = std::find(labels.begin(), labels.end(), label);
  if (found != labels.end()) return static_cast<int32_t>(found - labels.begin());
  return absl::InvalidArgumentError(absl::StrCat(data.folder(), ": no documents have the label '",
                                                 label, "'", did_you_mean(label, labels),
                                                 " Labels: ", absl::StrJoin(labels, ", ")));
}

absl::Status check_labels_differ(const std::vector<std::string>& labels) {
  for (const std::string& label : labels) {
    if (std::count(labels.begin(), labels.end(), label) > 1) {
      return absl::InvalidArgumentError("--label " + label + " is given twice");
    }
  }
  return absl::OkStatus();
}

ExpertNumbers router_scores(const ExpertUsage& usage) {
  ExpertNumbers scores = usage.probability;
  for (std::vector<double>& layer : scores) {
    for (double& score : layer) score /= usage.tokens;
  }
  return scores;
}

absl::StatusOr<ExpertUsage> usage_of(Inference* inference, int64_t sequence_length,
                                     const TokenDataset& data,
                                     const std::vector<int64_t>& documents, int64_t first_tokens,
                                     bool easy_ep) {
  UsageOptions options;
  options.sequence_length = sequence_length;
  options.first_tokens = first_tokens;
  options.easy_ep = easy_ep;
  options.pool = PoolPolicy::none();
  options.group_of_document.assign(count_documents(data), -1);
  for (const int64_t document : documents) options.group_of_document[document] = 0;
  absl::StatusOr<std::vector<ExpertUsage>> groups = measure_usage(inference, data, options);
  if (!groups.ok()) return groups.status();
  return groups->front();
}

}  // namespace emo

// Ranking a model's experts by how much documents use them.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "eval/experts/expert_usage.h"
#include "eval/open/open_model.h"

namespace emo {

// The number of a label among the data's sources. InvalidArgument, with a suggestion, where there
// is none.
absl::StatusOr<int32_t> find_label(const TokenDataset& data, const std::string& label);

// InvalidArgument where a --label is given twice.
absl::Status check_labels_differ(const std::vector<std::string>& labels);

// Scores [L][E] of the one-pass methods: the mean over tokens of the router's softmax over all
// experts ("router"), or EASY-EP's sums. REQUIRES: usage.tokens > 0.
ExpertNumbers router_scores(const ExpertUsage& usage);

// Collective. The usage of these documents (of their first tokens, 0: all) together, as the
// "router" method needs it, and with `easy_ep` as that does.
absl::StatusOr<ExpertUsage> usage_of(Inference* inference, int64_t sequence_length,
                                     const TokenDataset& data,
                                     const std::vector<int64_t>& documents, int64_t first_tokens,
                                     bool easy_ep);

}  // namespace emo

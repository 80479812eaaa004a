// Ranking a model's experts by how much documents use them.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "eval/expert_usage.h"
#include "eval/open_model.h"

namespace emo {

// The number of a label among the data's sources. InvalidArgument, with a suggestion, where there
// is none.
absl::StatusOr<int32_t> find_label(const TokenDataset& data, const std::string& label);

// Scores [L][E] of the one-pass methods: the mean over tokens of the router's softmax over all
// experts ("router"), or EASY-EP's sums.
ExpertNumbers router_scores(const ExpertUsage& usage);

// Collective. The usage of the documents of one label.
absl::StatusOr<ExpertUsage> usage_of_label(const OpenedModel& model, const Mesh& mesh,
                                           const TokenDataset& data, int32_t source,
                                           PassMemory* memory);

}  // namespace emo

// Ranking a model's experts by how much a domain's documents use them.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "eval/open_model.h"
#include "eval/perplexity.h"

namespace emo {

// The number of a label among the data's sources. InvalidArgument, with a suggestion, where there
// is none.
absl::StatusOr<int32_t> find_label(const TokenDataset& data, const std::string& label);

// Collective. Scores [L][E]: the router's softmax over all routed experts, summed over all tokens
// of the label's documents, without pools (the "router" method). `memory` as in evaluate().
absl::StatusOr<std::vector<std::vector<double>>> router_scores(const OpenedModel& model,
                                                               const Mesh& mesh,
                                                               const TokenDataset& data,
                                                               int32_t source, PassMemory* memory);

}  // namespace emo

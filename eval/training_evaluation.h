// Evaluation while a model trains (config section `eval`): the loss of each domain, and the
// retention curve, the loss that is left when only the experts that a domain uses most are kept. It
// shows while a run goes on whether modularity emerges.
#pragma once

#include "absl/status/statusor.h"
#include "train/trainer.h"

namespace emo {

// Collective; every rank gets the same answer. Nothing where the config asks for none. Opens
// eval.data and eval.tasks (training_tasks.h), which halve the time where both are named; errors as
// TokenDataset::open(), DataLoss where its tokens are not those of the training data, and
// InvalidArgument where the tokenizer of the training data is not known.
//
// Each domain's documents are halved: by one half experts are ranked ("router" method), on the
// other the losses are taken, both without pools. With D domains, C curve points and a size
// (evaluation_size.h) of T tokens, a pass over a domain has T / (D (C + 2)) tokens, or the
// beginning of one document.
//
// Metrics of the data: "eval/<domain>/loss", "eval/<domain>/loss with N experts" for N = 8, 16, 32,
// 64 below the model's, the means over domains without "<domain>/", and "eval/share of time".
absl::StatusOr<Observer> open_training_evaluation(const RunConfig& config, const Mesh& mesh);

}  // namespace emo

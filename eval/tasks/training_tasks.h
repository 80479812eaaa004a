// Tasks put to a model while it trains, see training_evaluation.h.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "data/documents/task_file.h"
#include "data/tokenizer/tokenizer.h"
#include "eval/tasks/task_evaluation.h"
#include "model/inference.h"
#include "train/config/run_config.h"
#include "train/trainer.h"

namespace emo {

struct TrainingTasks {
  std::vector<Task> tasks;
  std::vector<int64_t>
      questions;        // of each task: the first so many of its split "test"; at least 1
  Tokenizer tokenizer;  // of the training data
  int32_t eos_id;       // of the same
  EvalOptions eval;     // pools of routing.pool's `eval` size, or none
};

// Reads eval.tasks, one question of each. InvalidArgument where a task has no test question or not
// enough examples, or where the data has no tokenizer; DataLoss for a broken file, or a
// tokenizer with more ids than the model.
absl::StatusOr<TrainingTasks> open_training_tasks(const RunConfig& config);

// Takes of each task as many questions as `tokens` allow, which all tasks share alike, at least
// one. A choice counts its question's tokens and twice its own, since it is also scored without the
// question; a token that is generated counts as ten. Errors as above, of other questions.
absl::Status choose_questions(double tokens, TrainingTasks* tasks);

// Collective. "eval/tasks/<name>/<metric>" for the primary metric, and for choices "bits_per_byte",
// which moves before the accuracy does; and "eval/tasks/<name>/questions".
absl::Status answer_training_tasks(const TrainingTasks& tasks, Inference* inference,
                                   Metrics* metrics);

}  // namespace emo

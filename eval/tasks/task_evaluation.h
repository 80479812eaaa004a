// Tasks put to a model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/documents/task_file.h"
#include "data/files/json.h"
#include "data/tokenizer/tokenizer.h"
#include "eval/loss/perplexity.h"
#include "eval/tasks/task_scores.h"

namespace emo {

struct TaskOptions {
  std::string split = "test";
  std::optional<int64_t> shots;  // instead of the task's own number
  int64_t limit = 0;             // the first so many questions; 0: all
  int32_t eos_id = -1;           // ends what a model writes
  bool show_progress = false;
};

struct TaskAnswers {
  TaskResult result;
  std::vector<OrderedJson> predictions;  // one for each question
};

// Collective over the mesh; every rank gets the same answer. Choices: each is scored after its
// question, with `eval`'s pools and subsets (its documents and observer are not used). What is
// generated is the most likely token each time. A prompt that does not fit the model's positions
// loses its beginning. InvalidArgument where the split has no question, or too few examples, and as
// check_task().
absl::StatusOr<TaskAnswers> answer_task(Inference* inference, const Tokenizer& tokenizer,
                                        const Task& task, const TaskOptions& options,
                                        const EvalOptions& eval);

}  // namespace emo

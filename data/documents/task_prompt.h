// From a task's questions to the tokens that a model sees.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/documents/task_file.h"
#include "data/tokenizer/tokenizer.h"

namespace emo {

// The examples that a question is shown after: the first `shots` of the split "shots" with its
// category, or of all of that split where none has it. InvalidArgument where there are not enough.
absl::StatusOr<std::vector<const TaskItem*>> examples_for(const Task& task, const TaskItem& item,
                                                          int64_t shots);

// Description, examples with their answers, and the question itself, without an answer.
absl::StatusOr<std::string> prompt_of(const Task& task, const TaskItem& item, int64_t shots);

// A context and what follows it: tokens [context, size) are those that the context alone does not
// give, at least one of each.
struct AnsweredTokens {
  std::vector<int32_t> tokens;
  int64_t context = 0;
};

// Both are tokenized together, so that a token may stand across the border; it then belongs to the
// answer. DataLoss for invalid UTF-8, and where nothing is left to predict or to predict it from.
absl::StatusOr<AnsweredTokens> tokenize_answer(const Tokenizer& tokenizer,
                                               const std::string& prompt, const std::string& answer,
                                               Tokenizer::Cache* cache);

}  // namespace emo

#include "data/documents/task_prompt.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace emo {

absl::StatusOr<std::vector<const TaskItem*>> examples_for(const Task& task, const TaskItem& item,
                                                          int64_t shots) {
  std::vector<const TaskItem*> same, all;
  for (const TaskItem& candidate : task.items) {
    if (candidate.split != "shots" || &candidate == &item) continue;
    all.push_back(&candidate);
    if (candidate.category == item.category) same.push_back(&candidate);
  }
  std::vector<const TaskItem*>& chosen = same.empty() ? all : same;
  if (static_cast<int64_t>(chosen.size()) < shots) {
    return absl::InvalidArgumentError(
        absl::StrCat("task ", task.name, ": ", shots, " shots asked for, but only ", chosen.size(),
                     " questions of the split 'shots'",
                     same.empty() ? "" : " and the category '" + item.category + "'"));
  }
  chosen.resize(shots);
  return chosen;
}

absl::StatusOr<std::string> prompt_of(const Task& task, const TaskItem& item, int64_t shots) {
  absl::StatusOr<std::vector<const TaskItem*>> examples = examples_for(task, item, shots);
  if (!examples.ok()) return examples.status();
  std::string prompt = task.description.empty() ? "" : task.description + task.between;
  for (const TaskItem* example : *examples) {
    absl::StrAppend(&prompt, example->context, task.separator, example->answer(), task.between);
  }
  return prompt + item.context;
}

absl::StatusOr<AnsweredTokens> tokenize_answer(const Tokenizer& tokenizer,
                                               const std::string& prompt, const std::string& answer,
                                               Tokenizer::Cache* cache) {
  std::vector<int32_t> context;
  AnsweredTokens both;
  absl::Status status = tokenizer.encode(prompt, &context, cache);
  status.Update(tokenizer.encode(prompt + answer, &both.tokens, cache));
  if (!status.ok()) return status;
  const auto [at, ignored] =
      std::mismatch(context.begin(), context.end(), both.tokens.begin(), both.tokens.end());
  both.context = std::max<int64_t>(1, at - context.begin());
  if (both.context >= static_cast<int64_t>(both.tokens.size())) {
    return absl::DataLossError("'" + answer + "' adds no token to its context");
  }
  return both;
}

}  // namespace emo

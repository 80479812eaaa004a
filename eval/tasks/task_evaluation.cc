#include "eval/tasks/task_evaluation.h"

#include "absl/strings/str_cat.h"
#include "data/documents/task_prompt.h"
#include "data/program/progress.h"
#include "data/tokenizer/utf8.h"
#include "eval/generation/generation.h"
#include "eval/tasks/sequence_scores.h"

namespace emo {
namespace {

absl::StatusOr<std::vector<const TaskItem*>> questions_of(const Task& task,
                                                          const TaskOptions& options) {
  std::vector<const TaskItem*> items;
  for (const TaskItem& item : task.items) {
    const bool wanted = options.limit == 0 || static_cast<int64_t>(items.size()) < options.limit;
    if (item.split == options.split && wanted) items.push_back(&item);
  }
  if (items.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("task ", task.name, ": no question of the split '", options.split, "'"));
  }
  return items;
}

int64_t code_points(const std::string& text) {
  int64_t count = 0;
  for (size_t at = 0; at < text.size(); ++count) next_code_point(text, &at);
  return count;
}

// Keeps the last `most` tokens; says whether it had to cut.
bool cut_beginning(int64_t most, AnsweredTokens* both) {
  const auto excess = static_cast<int64_t>(both->tokens.size()) - most;
  if (excess <= 0) return false;
  both->tokens.erase(both->tokens.begin(), both->tokens.begin() + excess);
  both->context = std::max<int64_t>(1, both->context - excess);
  return true;
}

// All that has to be scored for a task of choices: of each question its choices, and then the same
// choices without the question.
struct ChoiceSequences {
  std::vector<Sequence> sequences;
  int64_t cut = 0;
};
absl::StatusOr<ChoiceSequences> tokenize_choices(const Tokenizer& tokenizer, const Task& task,
                                                 const std::vector<const TaskItem*>& items,
                                                 int64_t shots, int64_t most_tokens) {
  ChoiceSequences all;
  Tokenizer::Cache cache;
  for (size_t i = 0; i < items.size(); ++i) {
    absl::StatusOr<std::string> prompt = prompt_of(task, *items[i], shots);
    if (!prompt.ok()) return prompt.status();
    bool cut = false;
    for (const std::string& context : {*prompt, task.unconditional}) {
      for (const std::string& choice : items[i]->choices) {
        absl::StatusOr<AnsweredTokens> both =
            tokenize_answer(tokenizer, context, task.separator + choice, &cache);
        if (!both.ok()) return both.status();
        cut |= cut_beginning(most_tokens, &*both);
        all.sequences.push_back(
            {std::move(both->tokens), both->context, static_cast<int64_t>(i), 0});
      }
    }
    all.cut += cut ? 1 : 0;
  }
  return all;
}

OrderedJson prediction_of(const Task& task, const TaskItem& item,
                          const std::vector<ChoiceScore>& scores, const Metrics& metrics) {
  OrderedJson likelihoods = OrderedJson::array();
  for (const ChoiceScore& score : scores) likelihoods.push_back(score.log_likelihood);
  OrderedJson json = {{"task", task.name},
                      {"id", item.id},
                      {"category", item.category},
                      {"gold", item.gold},
                      {"chosen", chosen(scores, task.metric)},
                      {"log_likelihoods", likelihoods}};
  for (const auto& [name, value] : metrics) json[name] = value;
  return json;
}

absl::StatusOr<TaskAnswers> answer_choices(Inference* inference, const Tokenizer& tokenizer,
                                           const Task& task,
                                           const std::vector<const TaskItem*>& items, int64_t shots,
                                           const TaskOptions& options, const EvalOptions& eval) {
  absl::StatusOr<ChoiceSequences> all =
      tokenize_choices(tokenizer, task, items, shots, eval.sequence_length);
  if (!all.ok()) return all.status();
  Progress progress(task.name, static_cast<int64_t>(all->sequences.size()), "choices",
                    options.show_progress);
  const std::vector<double> likelihoods = log_likelihoods(
      inference, all->sequences, eval, [&](int64_t done) { progress.update(done); });
  std::vector<Metrics> metrics;
  TaskAnswers answers;
  size_t at = 0;
  for (const TaskItem* item : items) {
    const size_t choices = item->choices.size();
    std::vector<ChoiceScore> scores;
    for (size_t c = 0; c < choices; ++c, ++at) {
      const Sequence& sequence = all->sequences[at];
      scores.push_back({likelihoods[at], likelihoods[at + choices],
                        static_cast<int64_t>(sequence.tokens.size()) - sequence.context,
                        code_points(item->choices[c]),
                        static_cast<int64_t>(item->choices[c].size())});
    }
    at += choices;
    metrics.push_back(choice_metrics(scores, item->gold));
    answers.predictions.push_back(prediction_of(task, *item, scores, metrics.back()));
  }
  answers.result = summarise(task, items, metrics);
  answers.result.cut = all->cut;
  return answers;
}

// Prompts as tokens, of each the last `most`; counts those that were cut.
absl::StatusOr<std::vector<std::vector<int32_t>>> tokenize_prompts(
    const Tokenizer& tokenizer, const Task& task, const std::vector<const TaskItem*>& items,
    int64_t shots, int64_t most, int64_t* cut) {
  std::vector<std::vector<int32_t>> prompts;
  Tokenizer::Cache cache;
  for (const TaskItem* item : items) {
    absl::StatusOr<std::string> prompt = prompt_of(task, *item, shots);
    if (!prompt.ok()) return prompt.status();
    std::vector<int32_t> tokens;
    absl::Status status = tokenizer.encode(*prompt, &tokens, &cache);
    if (!status.ok()) return status;
    const auto excess = static_cast<int64_t>(tokens.size()) - most;
    if (excess > 0) tokens.erase(tokens.begin(), tokens.begin() + excess);
    *cut += excess > 0 ? 1 : 0;
    prompts.push_back(std::move(tokens));
  }
  return prompts;
}

absl::StatusOr<TaskAnswers> answer_generation(Inference* inference, const Tokenizer& tokenizer,
                                              const Task& task,
                                              const std::vector<const TaskItem*>& items,
                                              int64_t shots, const TaskOptions& options,
                                              const EvalOptions& eval) {
  if (task.max_new_tokens >= eval.sequence_length) {
    return absl::InvalidArgumentError(absl::StrCat("task ", task.name, ": max_new_tokens is ",
                                                   task.max_new_tokens, ", the model has ",
                                                   eval.sequence_length, " positions"));
  }
  TaskAnswers answers;
  int64_t cut = 0;
  absl::StatusOr<std::vector<std::vector<int32_t>>> prompts = tokenize_prompts(
      tokenizer, task, items, shots, eval.sequence_length - task.max_new_tokens, &cut);
  if (!prompts.ok()) return prompts.status();
  GenerationOptions generation;
  generation.max_new_tokens = task.max_new_tokens;
  generation.stop = task.stop;
  generation.eos_id = options.eos_id;
  generation.max_positions = eval.sequence_length;
  generation.pass = eval.pass;
  const auto questions = static_cast<int64_t>(items.size());
  Progress progress(task.name, questions, "questions", options.show_progress);
  int64_t done = 0;  // by this rank; the others are about as far
  generation.ended = [&](int64_t) {
    progress.update(std::min(questions, ++done * inference->mesh().world->size()));
  };
  const std::vector<Generated> texts = generate(inference, tokenizer, *prompts, generation);
  std::vector<Metrics> metrics;
  for (size_t i = 0; i < items.size(); ++i) {
    metrics.push_back(text_metrics(texts[i].text, items[i]->answers));
    OrderedJson json = {{"task", task.name},
                        {"id", items[i]->id},
                        {"category", items[i]->category},
                        {"answers", items[i]->answers},
                        {"text", texts[i].text}};
    for (const auto& [name, value] : metrics.back()) json[name] = value;
    answers.predictions.push_back(std::move(json));
  }
  answers.result = summarise(task, items, metrics);
  answers.result.cut = cut;
  return answers;
}

}  // namespace

absl::StatusOr<TaskAnswers> answer_task(Inference* inference, const Tokenizer& tokenizer,
                                        const Task& task, const TaskOptions& options,
                                        const EvalOptions& eval) {
  absl::Status status = check_metric(task);
  if (!status.ok()) return status;
  absl::StatusOr<std::vector<const TaskItem*>> items = questions_of(task, options);
  if (!items.ok()) return items.status();
  const int64_t shots = options.shots.value_or(task.shots);
  absl::StatusOr<TaskAnswers> answers =
      task.kind == TaskKind::kChoices
          ? answer_choices(inference, tokenizer, task, *items, shots, options, eval)
          : answer_generation(inference, tokenizer, task, *items, shots, options, eval);
  if (answers.ok()) answers->result.shots = shots;
  return answers;
}

}  // namespace emo

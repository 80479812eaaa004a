#include "eval/tasks/training_tasks.h"

#include "absl/strings/str_cat.h"
#include "data/documents/task_prompt.h"
#include "model/pool_sizes.h"
#include "train/run_data.h"

namespace emo {
namespace {

constexpr double kTokensOfAGeneratedOne = 10;  // one position at a time costs more than in a row

absl::StatusOr<double> tokens_of(const Tokenizer& tokenizer, const std::string& text,
                                 Tokenizer::Cache* cache) {
  std::vector<int32_t> tokens;
  absl::Status status = tokenizer.encode(text, &tokens, cache);
  if (!status.ok()) return status;
  return static_cast<double>(tokens.size());
}

// What it costs to put a question to the model, in tokens of a forward pass.
absl::StatusOr<double> cost_of(const Tokenizer& tokenizer, const Task& task, const TaskItem& item,
                               Tokenizer::Cache* cache) {
  absl::StatusOr<std::string> prompt = prompt_of(task, item, task.shots);
  if (!prompt.ok()) return prompt.status();
  absl::StatusOr<double> question = tokens_of(tokenizer, *prompt, cache);
  if (!question.ok()) return question.status();
  if (task.kind == TaskKind::kGeneration) {
    return *question + kTokensOfAGeneratedOne * static_cast<double>(task.max_new_tokens);
  }
  double cost = 0;
  for (const std::string& choice : item.choices) {
    absl::StatusOr<double> answer = tokens_of(tokenizer, task.separator + choice, cache);
    if (!answer.ok()) return answer.status();
    cost += *question + 2 * *answer;
  }
  return cost;
}

// How many test questions fit into `tokens`; the first always does.
absl::StatusOr<int64_t> questions_within(const Tokenizer& tokenizer, const Task& task,
                                         double tokens) {
  Tokenizer::Cache cache;
  int64_t count = 0;
  for (const TaskItem& item : task.items) {
    if (item.split != "test") continue;
    absl::StatusOr<double> cost = cost_of(tokenizer, task, item, &cache);
    if (!cost.ok()) return cost.status();
    tokens -= *cost;
    if (tokens < 0 && count > 0) break;
    ++count;
  }
  if (count > 0) return count;
  return absl::InvalidArgumentError(
      absl::StrCat("eval.tasks: task ", task.name, " has no question of the split 'test'"));
}

absl::StatusOr<Tokenizer> open_tokenizer(const DataTokenizer& of_data, const RunConfig& config) {
  if (of_data.file.empty() || of_data.eos_id < 0) {
    return absl::InvalidArgumentError(
        config.data.synthetic
            ? "eval.tasks: synthetic data has no tokenizer to read them"
            : "eval.tasks: name the data's tokenizer (data.tokenizer), which reads them");
  }
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::from_file(of_data.file);
  if (tokenizer.ok() && tokenizer->vocab_size() > config.model.vocab_size) {
    return absl::DataLossError(absl::StrCat(of_data.file, ": ", tokenizer->vocab_size(),
                                            " tokens, model.vocab_size is ",
                                            config.model.vocab_size));
  }
  return tokenizer;
}

}  // namespace

absl::StatusOr<TrainingTasks> open_training_tasks(const RunConfig& config) {
  absl::StatusOr<DataTokenizer> of_data = tokenizer_of(config);
  if (!of_data.ok()) return of_data.status();
  absl::StatusOr<Tokenizer> tokenizer = open_tokenizer(*of_data, config);
  if (!tokenizer.ok()) return tokenizer.status();
  absl::StatusOr<std::vector<Task>> tasks = read_tasks({config.eval.tasks});
  if (!tasks.ok()) return tasks.status();
  TrainingTasks result{
      *std::move(tasks), {}, *std::move(tokenizer), static_cast<int32_t>(of_data->eos_id), {}};
  for (const Task& task : result.tasks) {
    absl::Status status = check_metric(task);
    if (!status.ok()) return status;
  }
  result.eval.sequence_length = config.data.sequence_length;
  result.eval.pass.pool = eval_policy(config.routing.pool);
  absl::Status status = choose_questions(0, &result);
  if (!status.ok()) return status;
  return result;
}

absl::Status choose_questions(double tokens, TrainingTasks* tasks) {
  tasks->questions.clear();
  for (const Task& task : tasks->tasks) {
    absl::StatusOr<int64_t> questions =
        questions_within(tasks->tokenizer, task, tokens / static_cast<double>(tasks->tasks.size()));
    if (!questions.ok()) return questions.status();
    tasks->questions.push_back(*questions);
  }
  return absl::OkStatus();
}

absl::Status answer_training_tasks(const TrainingTasks& tasks, Inference* inference,
                                   Metrics* metrics) {
  for (size_t i = 0; i < tasks.tasks.size(); ++i) {
    TaskOptions options;
    options.limit = tasks.questions[i];
    options.eos_id = tasks.eos_id;
    absl::StatusOr<TaskAnswers> answers =
        answer_task(inference, tasks.tokenizer, tasks.tasks[i], options, tasks.eval);
    if (!answers.ok()) return answers.status();
    const TaskResult& result = answers->result;
    const std::string name = absl::StrCat("eval/tasks/", result.task, "/");
    metrics->emplace_back(name + result.metric, result.primary().mean);
    for (size_t m = 0; m < result.names.size(); ++m) {
      if (result.names[m] == "bits_per_byte" && result.metric != "bits_per_byte")
        metrics->emplace_back(name + result.names[m], result.metrics[m].mean);
    }
    metrics->emplace_back(name + "questions", static_cast<double>(result.questions));
  }
  return absl::OkStatus();
}

}  // namespace emo

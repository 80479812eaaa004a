// The metrics of tasks, from what a model answered; formulas as OLMES (Gu et al. 2024, arXiv
// 2406.08446) and, for text, SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250).
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "data/documents/task_file.h"

namespace emo {

// Names and values, always in the same order for the same kind of task.
using Metrics = std::vector<std::pair<std::string, double>>;

// What a model says of one choice.
struct ChoiceScore {
  double log_likelihood = 0;  // l, nats, after the question
  double unconditional = 0;   // l0, after Task::unconditional alone
  int64_t tokens = 0;         //
  int64_t characters = 0;     // code points of the choice, without the separator
  int64_t bytes = 0;          //
};

// acc_raw, acc_per_char, acc_per_token, acc_uncond: 1 where the gold choice has the largest l, l /
// characters, l / tokens, l - l0 (ties to the first), else 0. soft_loss_raw, _per_char, _per_token:
// the gold choice's share of the softmax over the first three. bits_per_byte: of the gold choice.
Metrics choice_metrics(const std::vector<ChoiceScore>& choices, int64_t gold);

// The choice that a metric acc_* would give, by its index.
int64_t chosen(const std::vector<ChoiceScore>& choices, const std::string& metric);

// f1, exact_match: best over the answers, of words in lower case without punctuation and articles;
// last_number: 1 where the last number of the text is that of an answer (GSM8K).
Metrics text_metrics(const std::string& text, const std::vector<std::string>& answers);

// InvalidArgument for a metric that a kind of task does not have.
absl::Status check_metric(const Task& task);

// Values of many questions: means and their standard errors.
struct Mean {
  double mean = 0;
  double error = 0;
};
struct CategoryResult {
  std::string name;
  int64_t questions = 0;
  std::vector<Mean> metrics;  // as in TaskResult::names
};
struct TaskResult {
  std::string task, metric;
  int64_t questions = 0;
  int64_t shots = 0;
  int64_t cut = 0;                         // questions whose beginning did not fit the model
  std::vector<std::string> names;          // of metrics
  std::vector<Mean> metrics;               // over all questions
  std::vector<CategoryResult> categories;  // by name; empty without categories
  std::vector<Mean> macro;                 // mean over the categories but task.not_averaged
  // The primary metric: the macro average where there are categories.
  Mean primary() const;
};

// `metrics` [questions], for the items in the same order.
TaskResult summarise(const Task& task, const std::vector<const TaskItem*>& items,
                     const std::vector<Metrics>& metrics);

}  // namespace emo

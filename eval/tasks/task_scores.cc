#include "eval/tasks/task_scores.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numbers>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace emo {
namespace {

using Rule = double (*)(const ChoiceScore&);
struct NamedRule {
  const char* suffix;
  Rule rule;
};
constexpr NamedRule kRules[] = {
    {"raw", [](const ChoiceScore& c) { return c.log_likelihood; }},
    {"per_char",
     [](const ChoiceScore& c) { return c.log_likelihood / static_cast<double>(c.characters); }},
    {"per_token",
     [](const ChoiceScore& c) { return c.log_likelihood / static_cast<double>(c.tokens); }},
    {"uncond", [](const ChoiceScore& c) { return c.log_likelihood - c.unconditional; }},
};
constexpr size_t kSoftRules = 3;  // the first ones

std::vector<double> apply(const std::vector<ChoiceScore>& choices, Rule rule) {
  std::vector<double> values;
  for (const ChoiceScore& choice : choices) values.push_back(rule(choice));
  return values;
}

int64_t largest(const std::vector<double>& values) {
  return std::max_element(values.begin(), values.end()) - values.begin();
}

double softmax_at(const std::vector<double>& values, int64_t at) {
  double sum = 0;
  for (const double value : values) sum += std::exp(value - values[at]);
  return 1 / sum;
}

// Words in lower case, without ASCII punctuation and English articles.
std::vector<std::string> normalised_words(const std::string& text) {
  std::string kept;
  for (const char c : text) {
    if (!absl::ascii_ispunct(static_cast<unsigned char>(c))) kept += absl::ascii_tolower(c);
  }
  std::vector<std::string> words =
      absl::StrSplit(kept, absl::ByAnyChar(" \t\n\r\v\f"), absl::SkipEmpty());
  words.erase(
      std::remove_if(words.begin(), words.end(),
                     [](const std::string& w) { return w == "a" || w == "an" || w == "the"; }),
      words.end());
  return words;
}

double f1(const std::vector<std::string>& predicted, const std::vector<std::string>& answer) {
  if (predicted.empty() || answer.empty()) return predicted == answer ? 1 : 0;
  std::map<std::string, int64_t> left;
  for (const std::string& word : answer) ++left[word];
  double common = 0;
  for (const std::string& word : predicted) {
    if (left[word]-- > 0) ++common;
  }
  return 2 * common / static_cast<double>(predicted.size() + answer.size());
}

// "1,234.50" as "1234.50"; "-7" with its sign.
std::optional<std::string> last_number(const std::string& text) {
  std::optional<std::string> number;
  for (size_t i = 0; i < text.size(); ++i) {
    if (!absl::ascii_isdigit(static_cast<unsigned char>(text[i]))) continue;
    std::string digits;
    if (i > 0 && text[i - 1] == '-') digits = "-";
    for (; i < text.size(); ++i) {
      const bool digit = absl::ascii_isdigit(static_cast<unsigned char>(text[i]));
      const bool inside = (text[i] == ',' || text[i] == '.') && i + 1 < text.size() &&
                          absl::ascii_isdigit(static_cast<unsigned char>(text[i + 1]));
      if (!digit && !inside) break;
      if (text[i] != ',') digits += text[i];
    }
    number = digits;
  }
  return number;
}

bool same_number(const std::string& text, const std::string& answer) {
  const std::optional<std::string> said = last_number(text);
  const std::optional<std::string> right = last_number(answer);
  return said && right && std::stod(*said) == std::stod(*right);
}

// Mean and standard error of the mean, of the sample.
Mean mean_of(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  double sum = 0;
  for (const double value : values) sum += value;
  double squares = 0;
  for (const double value : values) squares += (value - sum / n) * (value - sum / n);
  return {sum / n, n > 1 ? std::sqrt(squares / (n - 1) / n) : 0};
}

std::vector<Mean> means_of(const std::vector<Metrics>& metrics, const std::vector<size_t>& which) {
  std::vector<Mean> means;
  for (size_t m = 0; m < metrics.front().size(); ++m) {
    std::vector<double> values;
    for (const size_t i : which) values.push_back(metrics[i][m].second);
    means.push_back(mean_of(values));
  }
  return means;
}

}  // namespace

Metrics choice_metrics(const std::vector<ChoiceScore>& choices, int64_t gold) {
  Metrics metrics;
  for (const NamedRule& named : kRules) {
    const bool right = largest(apply(choices, named.rule)) == gold;
    metrics.emplace_back(absl::StrCat("acc_", named.suffix), right ? 1 : 0);
  }
  for (size_t i = 0; i < kSoftRules; ++i) {
    metrics.emplace_back(absl::StrCat("soft_loss_", kRules[i].suffix),
                         softmax_at(apply(choices, kRules[i].rule), gold));
  }
  const ChoiceScore& right = choices[gold];
  metrics.emplace_back("bits_per_byte", -right.log_likelihood / std::numbers::ln2 /
                                            static_cast<double>(right.bytes));
  return metrics;
}

int64_t chosen(const std::vector<ChoiceScore>& choices, const std::string& metric) {
  for (const NamedRule& named : kRules) {
    if (metric == absl::StrCat("acc_", named.suffix)) return largest(apply(choices, named.rule));
  }
  return largest(apply(choices, kRules[0].rule));
}

Metrics text_metrics(const std::string& text, const std::vector<std::string>& answers) {
  const std::vector<std::string> said = normalised_words(text);
  double best = 0;
  bool exact = false;
  bool number = false;
  for (const std::string& answer : answers) {
    const std::vector<std::string> right = normalised_words(answer);
    best = std::max(best, f1(said, right));
    exact = exact || said == right;
    number = number || same_number(text, answer);
  }
  return {{"f1", best}, {"exact_match", exact ? 1 : 0}, {"last_number", number ? 1 : 0}};
}

absl::Status check_metric(const Task& task) {
  const Metrics known = task.kind == TaskKind::kChoices ? choice_metrics({{-1, 0, 1, 1, 1}}, 0)
                                                        : text_metrics("", {""});
  std::vector<std::string> names;
  for (const auto& [name, value] : known) names.push_back(name);
  if (std::find(names.begin(), names.end(), task.metric) != names.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("task ", task.name, ": unknown metric '",
                                                 task.metric, "', must be one of ",
                                                 absl::StrJoin(names, ", ")));
}

Mean TaskResult::primary() const {
  const size_t m = std::find(names.begin(), names.end(), metric) - names.begin();
  return macro.empty() ? metrics[m] : macro[m];
}

TaskResult summarise(const Task& task, const std::vector<const TaskItem*>& items,
                     const std::vector<Metrics>& metrics) {
  TaskResult result;
  result.task = task.name;
  result.metric = task.metric;
  result.questions = static_cast<int64_t>(items.size());
  for (const auto& [name, value] : metrics.front()) result.names.push_back(name);
  std::map<std::string, std::vector<size_t>> by_category;
  std::vector<size_t> all(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    all[i] = i;
    by_category[items[i]->category].push_back(i);
  }
  result.metrics = means_of(metrics, all);
  if (by_category.size() < 2) return result;
  std::vector<Mean> macro(result.names.size());
  double averaged = 0;
  for (const auto& [name, which] : by_category) {
    CategoryResult category{name, static_cast<int64_t>(which.size()), means_of(metrics, which)};
    const bool left_out = std::find(task.not_averaged.begin(), task.not_averaged.end(), name) !=
                          task.not_averaged.end();
    for (size_t m = 0; m < macro.size() && !left_out; ++m) {
      macro[m].mean += category.metrics[m].mean;
      macro[m].error += category.metrics[m].error * category.metrics[m].error;
    }
    averaged += left_out ? 0 : 1;
    result.categories.push_back(std::move(category));
  }
  if (averaged == 0) return result;
  for (Mean& mean : macro) mean = {mean.mean / averaged, std::sqrt(mean.error) / averaged};
  result.macro = macro;
  return result;
}

}  // namespace emo

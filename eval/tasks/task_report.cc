#include "eval/tasks/task_report.h"

#include <cstdio>

#include "data/program/table_number.h"

namespace emo {
namespace {

OrderedJson means_json(const std::vector<std::string>& names, const std::vector<Mean>& means) {
  OrderedJson json = OrderedJson::object();
  for (size_t i = 0; i < means.size(); ++i) {
    json[names[i]] = means[i].mean;
    json[names[i] + "_standard_error"] = means[i].error;
  }
  return json;
}

}  // namespace

OrderedJson to_json(const TaskResult& result) {
  OrderedJson json = {{"metric", result.metric},
                      {"value", result.primary().mean},
                      {"standard_error", result.primary().error},
                      {"questions", result.questions},
                      {"shots", result.shots},
                      {"cut", result.cut},
                      {"metrics", means_json(result.names, result.metrics)}};
  if (result.categories.empty()) return json;
  json["macro"] = means_json(result.names, result.macro);
  json["categories"] = OrderedJson::object();
  for (const CategoryResult& category : result.categories) {
    OrderedJson numbers = means_json(result.names, category.metrics);
    numbers["questions"] = category.questions;
    json["categories"][category.name] = numbers;
  }
  return json;
}

void print_tasks(const std::vector<TaskResult>& results) {
  std::printf("%-28s %9s %5s  %-16s %8s %8s\n", "task", "questions", "shots", "metric", "value",
              "+-");
  double sum = 0;
  for (const TaskResult& result : results) {
    const Mean primary = result.primary();
    sum += primary.mean;
    std::printf("%-28s %9lld %5lld  %-16s %s %s%s\n", result.task.c_str(),
                static_cast<long long>(result.questions), static_cast<long long>(result.shots),
                result.metric.c_str(), table_number(primary.mean, 8, 4).c_str(),
                table_number(primary.error, 8, 4).c_str(), result.cut > 0 ? "  (prompts cut)" : "");
  }
  if (results.size() > 1) {
    std::printf("%-28s %9s %5s  %-16s %s\n", "mean", "", "", "",
                table_number(sum / static_cast<double>(results.size()), 8, 4).c_str());
  }
}

}  // namespace emo

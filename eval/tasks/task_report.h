// Results of tasks, for people and for scripts.
#pragma once

#include <vector>

#include "data/files/json.h"
#include "eval/tasks/task_scores.h"

namespace emo {

OrderedJson to_json(const TaskResult& result);

// A line for each task, with the primary metric, and the mean over tasks where there are several.
void print_tasks(const std::vector<TaskResult>& results);

}  // namespace emo

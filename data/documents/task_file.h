// Tasks: questions with known answers, one JSON object a line; docs/tasks.md describes the format.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace emo {

enum class TaskKind {
  kChoices,     // which of the choices does the model find most likely?
  kGeneration,  // what does it write?
};

struct TaskItem {
  std::string id, category;          // category "": none
  std::string split = "test";        // "shots": an example to show before others
  std::string context;               // never empty
  std::vector<std::string> choices;  // kChoices: two or more
  int64_t gold = -1;                 // kChoices: the right one
  std::vector<std::string> answers;  // kGeneration: any of these is right
  const std::string& answer() const { return choices.empty() ? answers.front() : choices[gold]; }
};

struct Task {
  std::string name;  // the file's, without its ending, unless the header says another
  TaskKind kind = TaskKind::kChoices;
  std::string metric;                      // the primary one (eval/tasks/task_scores.h)
  int64_t shots = 0;                       // examples before each question
  std::string description;                 // text before the examples; may be empty
  std::string separator = " ";             // between a context and its answer
  std::string between = "\n\n";            // between examples
  std::string unconditional = "Answer:";   // the context of acc_uncond's second term
  std::vector<std::string> not_averaged;   // categories that the macro average leaves out
  bool loss_on_answer = true;              // training: predict the answers only, else all
  int64_t max_new_tokens = 50;             // kGeneration
  std::vector<std::string> stop = {"\n"};  // kGeneration: ends of an answer
  std::vector<TaskItem> items;             // of all splits, in the file's order
};

// NotFound where there is no file; DataLoss with everything that is wrong in it, by line.
absl::StatusOr<Task> read_task(const std::string& path);

// The tasks of files, and of the .jsonl and .jsonl.gz files of folders. Their names must differ.
absl::StatusOr<std::vector<Task>> read_tasks(const std::vector<std::string>& paths);

}  // namespace emo

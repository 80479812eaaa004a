#include "data/documents/task_file.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/documents/document_reader.h"
#include "data/files/file_system.h"
#include "data/files/json.h"
#include "data/program/closest_name.h"
#include "data/program/first_lines.h"

namespace emo {
namespace {

constexpr size_t kReported = 20;  // problems of one file

// What is wrong with a file, each with its line.
struct Problems {
  std::vector<std::string> texts;
  void add(const absl::Status& status) {
    if (!status.ok()) texts.emplace_back(status.message());
  }
  absl::Status status() const {
    if (texts.empty()) return absl::OkStatus();
    return absl::DataLossError(absl::StrJoin(first_lines(texts, kReported), "\n"));
  }
};

// Reads fields of one object; what is wrong goes to `problems`.
class Fields {
 public:
  Fields(const Json& object, std::string where, Problems* problems)
      : object_(object), where_(std::move(where)), problems_(problems) {}

  template <typename T>
  bool read(const char* key, T* value) {
    seen_.insert(key);
    if (!object_.contains(key) || object_[key].is_null()) return false;
    absl::StatusOr<T> field = json_field<T>(object_, key, where_);
    problems_->add(field.status());
    if (!field.ok()) return false;
    *value = *std::move(field);
    return true;
  }
  bool has(const char* key) const { return object_.contains(key) && !object_[key].is_null(); }
  void wrong(const std::string& what) { problems_->texts.push_back(where_ + ": " + what); }
  void refuse_others() {
    const std::vector<std::string> known(seen_.begin(), seen_.end());
    for (const auto& [key, value] : object_.items()) {
      if (seen_.count(key) == 0) wrong("unknown field '" + key + "'" + did_you_mean(key, known));
    }
  }

 private:
  const Json& object_;
  const std::string where_;
  Problems* problems_;
  std::set<std::string> seen_;
};

// The first line, where it has a field "task".
void read_header(const Json& object, const std::string& where, Task* task, Problems* problems) {
  Fields fields(object, where, problems);
  fields.read("task", &task->name);
  std::string kind = "choices";
  fields.read("kind", &kind);
  if (kind == "generation") {
    task->kind = TaskKind::kGeneration;
  } else if (kind != "choices") {
    fields.wrong("kind is '" + kind + "', must be choices or generation");
  }
  fields.read("metric", &task->metric);
  fields.read("shots", &task->shots);
  if (task->shots < 0) fields.wrong("shots is negative");
  fields.read("description", &task->description);
  fields.read("separator", &task->separator);
  fields.read("between", &task->between);
  fields.read("unconditional", &task->unconditional);
  if (task->unconditional.empty()) fields.wrong("unconditional is empty");
  fields.read("not_averaged", &task->not_averaged);
  std::string loss = "answer";
  fields.read("loss", &loss);
  if (loss != "answer" && loss != "all") {
    fields.wrong("loss is '" + loss + "', must be answer or all");
  }
  task->loss_on_answer = loss == "answer";
  fields.read("max_new_tokens", &task->max_new_tokens);
  if (task->max_new_tokens < 1) fields.wrong("max_new_tokens is below 1");
  fields.read("stop", &task->stop);
  fields.refuse_others();
}

void read_choices(Fields* fields, TaskItem* item) {
  if (!fields->read("choices", &item->choices)) {
    if (!fields->has("choices")) fields->wrong("field 'choices' is missing");
    return;
  }
  if (item->choices.size() < 2) fields->wrong("fewer than two choices");
  for (const std::string& choice : item->choices) {
    if (choice.empty()) fields->wrong("an empty choice");
  }
  if (!fields->has("gold")) fields->wrong("field 'gold' is missing");
  if (!fields->read("gold", &item->gold)) return;
  if (item->gold < 0 || item->gold >= static_cast<int64_t>(item->choices.size())) {
    fields->wrong(absl::StrCat("gold is ", item->gold, " of ", item->choices.size(), " choices"));
  }
}

void read_answers(Fields* fields, TaskItem* item) {
  if (!fields->has("answers")) fields->wrong("field 'answers' is missing");
  if (!fields->read("answers", &item->answers)) return;
  if (item->answers.empty()) fields->wrong("no answers");
  for (const std::string& answer : item->answers) {
    if (answer.empty()) fields->wrong("an empty answer");
  }
}

TaskItem read_item(const Json& object, const std::string& where, TaskKind kind,
                   Problems* problems) {
  Fields fields(object, where, problems);
  TaskItem item;
  if (!fields.read("context", &item.context)) {
    if (!fields.has("context")) fields.wrong("field 'context' is missing");
  } else if (item.context.empty()) {
    fields.wrong("the context is empty");
  }
  if (kind == TaskKind::kChoices) {
    read_choices(&fields, &item);
  } else {
    read_answers(&fields, &item);
  }
  fields.read("category", &item.category);
  fields.read("split", &item.split);
  if (!fields.read("id", &item.id)) item.id = where.substr(where.rfind(':') + 1);
  fields.refuse_others();
  return item;
}

std::string name_of(const std::string& path) {
  std::string name = std::filesystem::path(path).filename().string();
  for (const char* ending : {".gz", ".jsonl"}) {
    if (absl::EndsWith(name, ending)) name.resize(name.size() - std::string(ending).size());
  }
  return name;
}

absl::StatusOr<std::vector<std::string>> files_of(const std::vector<std::string>& paths) {
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    if (!std::filesystem::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    absl::StatusOr<std::vector<std::string>> names = list_directory(path);
    if (!names.ok()) return names.status();
    const size_t before = files.size();
    for (const std::string& name : *names) {
      if (absl::EndsWith(name, ".jsonl") || absl::EndsWith(name, ".jsonl.gz")) {
        files.push_back(path + "/" + name);
      }
    }
    if (files.size() == before)
      return absl::NotFoundError(path + ": no .jsonl file in this folder");
    std::sort(files.begin() + static_cast<int64_t>(before), files.end());
  }
  return files;
}

}  // namespace

absl::StatusOr<Task> read_task(const std::string& path) {
  absl::StatusOr<DocumentReader> reader = DocumentReader::open({path});
  if (!reader.ok()) return reader.status();
  Task task;
  task.name = name_of(path);
  Problems problems;
  bool first = true;
  RawDocument line;
  while (true) {
    absl::StatusOr<bool> more = reader->next(&line);
    if (!more.ok()) return more.status();
    if (!*more) break;
    const std::string where = absl::StrCat(line.file, ":", line.line);
    absl::StatusOr<Json> object = parse_json(line.bytes, where);
    problems.add(object.status());
    if (!object.ok()) continue;
    if (!object->is_object()) {
      problems.texts.push_back(where + ": not a JSON object");
    } else if (first && object->contains("task")) {
      read_header(*object, where, &task, &problems);
    } else {
      task.items.push_back(read_item(*object, where, task.kind, &problems));
    }
    first = false;
  }
  if (task.items.empty() && problems.texts.empty()) {
    problems.texts.push_back(path + ": no questions");
  }
  if (task.metric.empty()) task.metric = task.kind == TaskKind::kChoices ? "acc_per_char" : "f1";
  absl::Status status = problems.status();
  if (!status.ok()) return status;
  return task;
}

absl::StatusOr<std::vector<Task>> read_tasks(const std::vector<std::string>& paths) {
  absl::StatusOr<std::vector<std::string>> files = files_of(paths);
  if (!files.ok()) return files.status();
  std::vector<Task> tasks;
  std::set<std::string> names;
  for (const std::string& file : *files) {
    absl::StatusOr<Task> task = read_task(file);
    if (!task.ok()) return task.status();
    if (!names.insert(task->name).second) {
      return absl::DataLossError(file + ": a second task of the name " + task->name);
    }
    tasks.push_back(*std::move(task));
  }
  return tasks;
}

}  // namespace emo

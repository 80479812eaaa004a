#include "eval/commands.h"

#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "data/files/file_system.h"
#include "data/files/json.h"
#include "data/program/exit_code.h"
#include "data/program/table_number.h"
#include "eval/loss/perplexity.h"
#include "eval/open/mesh_options.h"
#include "eval/open/open_model.h"
#include "eval/open/output_file.h"
#include "eval/open/pool_option.h"
#include "eval/tasks/task_evaluation.h"
#include "eval/tasks/task_report.h"
#include "parallel/agreement.h"
#include "parallel/mpi_communicator.h"
#include "train/checkpoint/find_model.h"
#include "train/subset/expert_subset.h"

namespace emo {
namespace {

struct Options {
  std::string checkpoint, data, experts;
  std::vector<std::string> tasks;
  TaskOptions task;
  std::string predictions;
  std::string pool = "none";
  MeshOptions mesh;
  bool full_weights = false;
  bool routed_off = false;
  bool overwrite = false;
  bool by_document = false;
  bool json = false;
};

OrderedJson loss_json(const SourceLoss& loss) {
  return {{"loss", loss.mean()},
          {"perplexity", loss.perplexity()},
          {"bits_per_byte", loss.bits_per_byte()},
          {"documents", std::llround(loss.documents)},
          {"predicted_tokens", std::llround(loss.predicted)},
          {"bytes", std::llround(loss.bytes)}};
}

void print_row(const std::string& label, const SourceLoss& loss) {
  std::printf("%-28s %9.0f %11.0f %s %s %s\n", label.c_str(), loss.documents, loss.predicted,
              table_number(loss.mean(), 8, 4).c_str(),
              table_number(loss.perplexity(), 11, 3).c_str(),
              table_number(loss.bits_per_byte(), 9, 4).c_str());
}

struct Losses {
  std::vector<std::string> labels;
  std::vector<SourceLoss> sources;
  std::vector<OrderedJson> documents;  // of each source {"ids", "tokens", "loss"}; where asked for
};

// Lists of a number for each document, of each source.
absl::StatusOr<std::vector<OrderedJson>> losses_of_documents(const TokenDataset& data,
                                                             const std::vector<int64_t>& documents,
                                                             const EvalResult& result) {
  absl::StatusOr<std::vector<std::string>> ids = ids_of_documents(data, documents);
  if (!ids.ok()) return ids.status();
  std::vector<int32_t> source_of;
  for (int64_t shard = 0; shard < data.num_shards(); ++shard) {
    for (const StoredDocument& document : data.documents(shard)) {
      source_of.push_back(static_cast<int32_t>(document.source));
    }
  }
  const OrderedJson empty = {{"ids", OrderedJson::array()},
                             {"tokens", OrderedJson::array()},
                             {"loss", OrderedJson::array()}};
  std::vector<OrderedJson> lists(data.info().sources.size(), empty);
  for (size_t i = 0; i < documents.size(); ++i) {
    OrderedJson& list = lists[source_of[documents[i]]];
    const DocumentLoss& document = result.documents[i];
    list["ids"].push_back((*ids)[i]);
    list["tokens"].push_back(document.predicted);
    list["loss"].push_back(document.loss / document.predicted);
  }
  return lists;
}

absl::StatusOr<Losses> losses_on(const std::string& folder, const OpenedModel& opened,
                                 EvalOptions eval, bool by_document, Inference* inference) {
  absl::StatusOr<TokenDataset> data = open_data_for(opened, folder, inference->mesh());
  if (!data.ok()) return data.status();
  eval.documents = choose_documents(*data, {});
  absl::StatusOr<EvalResult> result = evaluate(inference, *data, eval);
  if (!result.ok()) return result.status();
  Losses losses{data->info().sources, result->sources, {}};
  if (!by_document) return losses;
  absl::StatusOr<std::vector<OrderedJson>> documents =
      losses_of_documents(*data, eval.documents, *result);
  const absl::Status status = agree(*inference->mesh().world, documents.status());
  if (!status.ok()) return status;
  losses.documents = *std::move(documents);
  return losses;
}

// The first rank writes the predictions.
absl::StatusOr<std::vector<TaskResult>> answer_tasks(const Options& options,
                                                     const OpenedModel& opened,
                                                     const std::vector<Task>& tasks,
                                                     const EvalOptions& eval,
                                                     Inference* inference) {
  const Mesh& mesh = inference->mesh();
  absl::StatusOr<Tokenizer> tokenizer = open_tokenizer(opened, mesh);
  if (!tokenizer.ok()) return tokenizer.status();
  TaskOptions asked = options.task;
  asked.eos_id = opened.description.eos_id;
  std::vector<TaskResult> results;
  std::string predictions;
  for (const Task& task : tasks) {
    absl::StatusOr<TaskAnswers> answers = answer_task(inference, *tokenizer, task, asked, eval);
    if (!answers.ok()) return answers.status();
    for (const OrderedJson& line : answers->predictions) predictions += to_line(line);
    results.push_back(std::move(answers->result));
  }
  absl::Status status;
  if (mesh.is_first() && !options.predictions.empty()) {
    status = write_file_durably(posix_file_system(), options.predictions, predictions);
  }
  status = agree(*mesh.world, status);
  if (!status.ok()) return status;
  return results;
}

OrderedJson report(const Options& options, const OpenedModel& model, const Losses& losses,
                   const std::vector<TaskResult>& tasks) {
  OrderedJson json = OrderedJson::object();
  if (!options.data.empty()) json = loss_json(total(losses.sources));
  json["checkpoint"] = model.folder;
  json["pool"] = options.pool;
  json["experts"] = options.experts.empty() ? OrderedJson(nullptr) : OrderedJson(options.experts);
  if (!options.data.empty()) {
    json["data"] = options.data;
    json["sources"] = OrderedJson::object();
    for (size_t i = 0; i < losses.labels.size(); ++i) {
      OrderedJson& source = json["sources"][losses.labels[i]];
      source = loss_json(losses.sources[i]);
      if (!losses.documents.empty()) source["by_document"] = losses.documents[i];
    }
  }
  if (!tasks.empty()) json["tasks"] = OrderedJson::object();
  for (const TaskResult& task : tasks) json["tasks"][task.task] = to_json(task);
  return json;
}

void print(const Options& options, const Losses& losses, const std::vector<TaskResult>& tasks) {
  if (!options.data.empty()) {
    std::printf("%-28s %9s %11s %8s %11s %9s\n", "source", "documents", "predicted", "loss",
                "perplexity", "bits/byte");
    for (size_t i = 0; i < losses.labels.size(); ++i) {
      print_row(losses.labels[i], losses.sources[i]);
    }
    print_row("all", total(losses.sources));
  }
  if (!tasks.empty()) print_tasks(tasks);
}

// How the model is to be used. With `masked`, it is whole and a subset is put over it.
absl::StatusOr<EvalOptions> eval_options(const Options& options, const OpenedModel& opened,
                                         bool masked) {
  const ModelConfig& config = opened.description.config;
  EvalOptions eval;
  eval.sequence_length = opened.description.max_positions;
  eval.pass.routed_off = options.routed_off;
  absl::StatusOr<PoolPolicy> pool = parse_pool(options.pool, config.routed_top_k());
  if (!pool.ok()) return pool.status();
  eval.pass.pool = *pool;
  if (!masked) return eval;
  absl::StatusOr<SubsetFile> subset = read_subset(options.experts, config, opened.identity);
  if (!subset.ok()) return subset.status();
  eval.pass.subsets = to_subsets(config, subset->experts_kept_per_layer, /*full_weights=*/true);
  return eval;
}

absl::StatusOr<int> run(const Options& options) {
  if (options.data.empty() && options.tasks.empty()) {
    return absl::InvalidArgumentError("say what to evaluate on: --data DIR, --tasks FILE or both");
  }
  absl::StatusOr<Mesh> mesh = open_mesh(options.mesh);
  if (!mesh.ok()) return mesh.status();
  absl::StatusOr<std::vector<Task>> tasks = std::vector<Task>();
  if (!options.tasks.empty()) tasks = read_tasks(options.tasks);
  absl::Status status = tasks.status();
  if (mesh->is_first()) status.Update(check_new_file(options.predictions, options.overwrite));
  status = agree(*mesh->world, status);
  if (!status.ok()) return status;
  // Weights as in the full model need the routers of all experts.
  const bool masked = options.full_weights && !options.experts.empty();
  absl::StatusOr<OpenedModel> opened =
      open_model(options.checkpoint, *mesh, masked ? "" : options.experts, options.mesh);
  if (!opened.ok()) return opened.status();
  absl::StatusOr<EvalOptions> eval = eval_options(options, *opened, masked);
  status = agree(*mesh->world, eval.status());
  if (!status.ok()) return status;
  const std::unique_ptr<Inference> inference = open_inference(*opened, *mesh);
  absl::StatusOr<Losses> losses = Losses();
  if (!options.data.empty()) {
    losses = losses_on(options.data, *opened, *eval, options.by_document, inference.get());
  }
  if (!losses.ok()) return losses.status();
  absl::StatusOr<std::vector<TaskResult>> results = std::vector<TaskResult>();
  if (!tasks->empty()) results = answer_tasks(options, *opened, *tasks, *eval, inference.get());
  if (!results.ok()) return results.status();
  if (!mesh->is_first()) return kExitDone;
  if (options.json) std::printf("%s", to_text(report(options, *opened, *losses, *results)).c_str());
  if (!options.json) print(options, *losses, *results);
  return kExitDone;
}

}  // namespace

Command eval_command() {
  auto options = std::make_shared<Options>();
  Command command;
  command.name = "eval";
  command.summary = "Loss for each source label, and answers to tasks";
  command.options.add("CHECKPOINT", &options->checkpoint, kModelHelp).required();
  add_subset_option(&command.options, &options->experts);
  command.options.add("--data", &options->data, "folder that emo prepare wrote");
  command.options.add("--tasks", &options->tasks, "task files (docs/tasks.md), or folders of them")
      .commas();
  command.options.add("--split", &options->task.split, "questions of which split").show_default();
  command.options
      .add("--shots", &options->task.shots,
           "examples before each question; else as many as the task says")
      .at_least(0);
  command.options.add("--limit", &options->task.limit, "only the first so many questions; 0: all")
      .at_least(0)
      .show_default();
  command.options.add("--predictions", &options->predictions,
                      "JSON lines to write: what was answered to each question");
  command.options.add("--overwrite", &options->overwrite, "replace the predictions");
  command.options.add("--full-weights", &options->full_weights,
                      "with --experts: weights as in the full model, not a softmax over the kept");
  command.options.add("--no-routed-experts", &options->routed_off, "all routed experts off");
  command.options.add("--pool", &options->pool, "document pools: none, N or MIN-MAX")
      .show_default();
  add_mesh_options(&command.options, &options->mesh);
  add_device_options(&command.options, &options->mesh);
  command.options.add("--by-document", &options->by_document,
                      "with --json: the loss of each document too");
  command.options.add("--json", &options->json, "one JSON object on standard output");
  command.footer =
      "Example: emo eval runs/quickstart/emo --data runs/quickstart/data/test --json\n"
      "         emo eval runs/quickstart/emo --tasks runs/quickstart/tasks";
  command.run = [options] {
    options->task.show_progress = is_first_rank();
    return run(*options);
  };
  return command;
}

}  // namespace emo

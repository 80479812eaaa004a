#include "train/trainer.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/program/progress.h"
#include "data/rows/dataset_chunks.h"
#include "parallel/agreement.h"
#include "train/metrics/exchange_metrics.h"
#include "train/metrics/metrics_log.h"
#include "train/metrics/router_metrics.h"
#include "train/plan/flops.h"
#include "train/run_start.h"
#include "train/step/finite.h"
#include "train/step/step_batches.h"
#include "train/step/stepper.h"
#include "train/stop_signal.h"

namespace emo {
namespace {

// Collective: names the step and the first bad tensor of the first rank that has one.
absl::Status not_finite(const Mesh& mesh, const StepResult& result, int64_t step,
                        Stepper* stepper) {
  stepper->sync();
  const ParameterLayout& layout = stepper->model().layout;
  const FlatBuffers gradients = stepper->gradients();
  std::string bad = first_bad_tensor(layout, stepper->model().parameters);
  if (bad.empty()) {
    bad = first_bad_tensor(layout, gradients);
    if (!bad.empty()) bad = "gradient of " + bad;
  }
  const std::vector<std::string> found = gather_texts(*mesh.world, bad);
  std::string where = "the loss only";
  for (auto it = found.rbegin(); it != found.rend(); ++it) {
    if (!it->empty()) where = *it;
  }
  return absl::AbortedError(absl::StrFormat(
      "step %d: numbers are not finite (loss %g, gradient norm %g); first bad tensor: %s. Nothing "
      "was updated; the last checkpoint is good. Try a lower schedule.peak or a longer warm-up.",
      step, result.cross_entropy(), result.gradient_norm, where));
}

Metrics step_metrics(const RunConfig& config, const StepResult& result, double learning_rate,
                     double seconds, double flops, int64_t tokens_seen, const Mesh& mesh) {
  const double ce = result.cross_entropy();
  const double rate =
      static_cast<double>(config.train.batch * config.data.sequence_length) / seconds;
  Metrics metrics = {{"train/CE loss", ce},
                     {"train/Z loss", result.z_loss(config.train.lm_z_weight)},
                     {"optim/LR", learning_rate},
                     {"optim/total grad norm", result.gradient_norm},
                     {"throughput/total tokens", static_cast<double>(tokens_seen)},
                     {"throughput/TPS", rate},
                     {"throughput/device/TPS", rate / static_cast<double>(mesh.world->size())},
                     {"throughput/model FLOP/s", rate * flops},
                     {"throughput/seconds per step", seconds}};
  if (ce < 10) metrics.insert(metrics.begin() + 1, {"train/PPL", std::exp(ce)});
  for (const auto& [name, value] :
       router_metrics(config.model, config.routing, result.sums, result.divisor)) {
    metrics.emplace_back("train/" + name, value);
  }
  const Metrics exchange = exchange_metrics(config.model, result.exchange);
  metrics.insert(metrics.end(), exchange.begin(), exchange.end());
  return metrics;
}

// What the first rank writes beside checkpoints; others have none.
absl::StatusOr<std::optional<MetricsLog>> open_log(const RunConfig& config, const Mesh& mesh,
                                                   int64_t step) {
  if (!mesh.is_first()) return std::nullopt;
  FileSystem& fs = posix_file_system();
  absl::Status status = fs.make_directories(config.run.folder);
  if (status.ok()) {
    status = write_file_durably(fs, config.run.folder + "/config.yaml", to_yaml(config));
  }
  if (!status.ok()) return status;
  absl::StatusOr<MetricsLog> log = MetricsLog::open(fs, config.run.folder, step);
  if (!log.ok()) return log.status();
  return std::optional<MetricsLog>(*std::move(log));
}

// Collective; every rank gets the same answer.
absl::Status save(const RunConfig& config, const Mesh& mesh, const ModelDescription& description,
                  const RunStart& now, Stepper* stepper) {
  stepper->sync();
  const Model& model = stepper->model();
  const std::string bad = first_bad_tensor(model.layout, model.parameters);
  absl::Status status =
      agree(*mesh.world,
            bad.empty() ? absl::OkStatus()
                        : absl::AbortedError("not saved: parameter " + bad + " is not finite"));
  if (!status.ok()) return status;
  CheckpointContents contents{&model, stepper->optimizer(), &description, now.position,
                              "",     now.pruning};
  const std::string tokenizer = config.data.path + "/tokenizer.json";
  if (!config.data.path.empty() && path_exists(tokenizer)) contents.tokenizer_path = tokenizer;
  absl::StatusOr<std::string> folder =
      write_checkpoint(posix_file_system(), mesh, config.run.folder, contents);
  if (!folder.ok()) return folder.status();
  absl::Status removed;
  if (mesh.is_first()) {
    removed =
        remove_old_checkpoints(posix_file_system(), config.run.folder, config.checkpoint.keep);
  }
  return agree(*mesh.world, removed);
}

// The router's losses over all tokens are divided by the number of labels all the same.
void say_if_few_labels(const RunConfig& config, const StepResult& result) {
  const auto tokens = static_cast<double>(config.train.batch * config.data.sequence_length);
  const bool has_losses = config.model.moe_layers() > 0 &&
                          (config.routing.balance_weight > 0 || config.routing.z_weight > 0);
  if (config.routing.losses_over == LossTokens::kLabelled || !has_losses ||
      2 * result.divisor > tokens) {
    return;
  }
  std::fprintf(
      stderr,
      "emo: %.0f of the step's %.0f tokens are predicted, and the router's losses are of "
      "all of them: %.1f times as strong as their weights say. routing.losses_over=labelled "
      "leaves out those that are not.\n",
      result.sums.labels, tokens, tokens / result.divisor);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChunkSource>> open_source(const RunConfig& config) {
  if (config.data.synthetic) {
    return std::make_unique<SyntheticChunks>(*config.data.synthetic, config.data.sequence_length);
  }
  absl::StatusOr<std::unique_ptr<DatasetChunks>> chunks =
      DatasetChunks::open(config.data.path, config.data.sequence_length, config.data.documents);
  if (!chunks.ok()) return chunks.status();
  if ((*chunks)->vocab_size() > config.model.vocab_size) {
    return absl::DataLossError(
        absl::StrCat(config.data.path, ": its tokenizer has ", (*chunks)->vocab_size(),
                     " tokens, model.vocab_size is ", config.model.vocab_size));
  }
  return chunks;
}

ModelDescription describe(const RunConfig& config, const ChunkSource& source) {
  return {config.model,           config.data.sequence_length,
          source.eos_id(),        config.document_attention,
          config.eos_routes_with, config.routing};
}

absl::StatusOr<RunEnd> train(const RunConfig& config, const Mesh& mesh,
                             const TrainOptions& options) {
  absl::StatusOr<std::unique_ptr<ChunkSource>> source = open_source(config);
  absl::Status status = agree(*mesh.world, source.status());
  if (!status.ok()) return status;
  absl::StatusOr<ExpertOrder> order = expert_order_for_run(config, mesh);
  if (!order.ok()) return order.status();
  const std::unique_ptr<Stepper> stepper = make_stepper(config, mesh, *std::move(order));
  absl::StatusOr<RunStart> start =
      start_run(config, **source, mesh, stepper->model(), stepper->optimizer());
  if (!start.ok()) return start.status();
  stepper->taken();
  RunStart now = *start;
  TrainingPosition& position = now.position;
  absl::StatusOr<std::optional<MetricsLog>> log = open_log(config, mesh, position.step);
  status = agree(*mesh.world, log.status());
  if (!status.ok()) return status;

  position.data_fingerprint = (*source)->fingerprint();
  position.config = to_pairs(config);
  const ModelDescription description = describe(config, **source);
  const int64_t total = config.total_steps();
  int64_t saved_step = position.step;
  StepOptions step_options = step_options_of(config);
  watch_stop_signals();
  Progress progress("train", total, "steps", options.show_progress && mesh.is_first());
  progress.update(position.step);

  while (position.step < total) {
    const auto begin = std::chrono::steady_clock::now();
    absl::StatusOr<StepBatches> batches = load_step(**source, config, mesh, position.sequences);
    status = agree(*mesh.world, !batches.ok()      ? batches.status()
                                : stop_requested() ? absl::CancelledError("stopped by a signal")
                                                   : absl::OkStatus());
    if (!status.ok()) break;

    const int64_t step = position.step + 1;
    const bool logs = step % config.train.log_every == 0 || step == total;
    step_options.learning_rate = learning_rate(config.schedule, step, total);
    step_options.want_exchange = logs;
    const StepResult result = stepper->step(*batches, step_options);
    if (!result.finite()) return not_finite(mesh, result, step, stepper.get());
    if (position.step == start->position.step && mesh.is_first()) say_if_few_labels(config, result);

    position.step = step;
    position.sequences += config.train.batch;
    position.tokens += config.train.batch * config.data.sequence_length;
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    const bool observes = options.observer && (step % config.eval.every == 0 || step == total);
    Metrics observed;
    if (observes) {
      absl::StatusOr<Metrics> metrics = options.observer(stepper.get());
      if (!metrics.ok()) return metrics.status();
      observed = *std::move(metrics);
    }
    if (log->has_value() && (logs || observes)) {
      Metrics metrics = step_metrics(config, result, step_options.learning_rate, seconds,
                                     flops_per_token(config.model, batches->attention_ends),
                                     position.tokens, mesh);
      metrics.insert(metrics.end(), observed.begin(), observed.end());
      const absl::Status logged = (*log)->write(step, metrics);
      if (!logged.ok()) std::fprintf(stderr, "emo: %s\n", std::string(logged.message()).c_str());
    }
    if (config.checkpoint.every > 0 && step % config.checkpoint.every == 0) {
      status = save(config, mesh, description, now, stepper.get());
      if (!status.ok()) return status;
      saved_step = step;
    }
    progress.update(step, absl::StrFormat("loss %.3f  lr %.1e", result.cross_entropy(),
                                          step_options.learning_rate));
  }
  const bool stopped = status.code() == absl::StatusCode::kCancelled;
  if (!status.ok() && !stopped) return status;
  if (saved_step < position.step) {
    status = save(config, mesh, description, now, stepper.get());
    if (!status.ok()) return status;
  }
  return stopped ? RunEnd::kStopped : RunEnd::kDone;
}

}  // namespace emo

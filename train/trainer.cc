#include "train/trainer.h"

#include <ATen/ops/from_blob.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/program/progress.h"
#include "data/rows/data_record.h"
#include "model/pool_sizes.h"
#include "parallel/agreement.h"
#include "train/metrics/exchange_metrics.h"
#include "train/metrics/metrics_log.h"
#include "train/metrics/router_metrics.h"
#include "train/plan/flops.h"
#include "train/run_start.h"
#include "train/step/finite.h"
#include "train/step/step_batches.h"
#include "train/step/step_reader.h"
#include "train/step/stepper.h"
#include "train/stop_signal.h"

namespace emo {
namespace {

// Collective: names the step and the first bad tensor of the first rank that has one.
absl::Status not_finite(const Mesh& mesh, const StepResult& result, int64_t step,
                        Stepper* stepper) {
  stepper->copy_to_host();
  const Model& model = *stepper->model();
  const ParameterLayout& layout = model.layout;
  const FlatBuffers gradients = stepper->gradients();
  std::string bad = first_bad_tensor(layout, model.parameters);
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
                     double seconds, double seconds_waited, double flops, int64_t tokens_seen,
                     const Mesh& mesh) {
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
                     {"throughput/seconds per step", seconds},
                     {"throughput/device/data loading (s)", seconds_waited}};
  if (ce < 10) metrics.insert(metrics.begin() + 1, {"train/PPL", std::exp(ce)});
  for (const auto& [name, value] :
       router_metrics(config.model, config.routing, result.sums, result.divisor)) {
    metrics.emplace_back("train/" + name, value);
  }
  const Metrics exchange = exchange_metrics(config.model, result.exchange);
  metrics.insert(metrics.end(), exchange.begin(), exchange.end());
  return metrics;
}

// Collective: rows are dealt by number, so every rank must number the same ones.
absl::Status agree_on_data(const ChunkSource& source, const Mesh& mesh) {
  const std::vector<std::string> all = gather_texts(*mesh.world, source.fingerprint());
  for (size_t rank = 1; rank < all.size(); ++rank) {
    if (all[rank] == all[0]) continue;
    return absl::DataLossError(
        absl::StrCat("the data of rank ", rank,
                     " is not that of rank 0: other files, or others of the same "
                     "names; emo data check on both machines says which"));
  }
  return absl::OkStatus();
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

// The router's losses over all tokens are divided by the number of labels all the same; the balance
// loss of documents is not.
void say_if_few_labels(const RunConfig& config, const StepResult& result) {
  const auto tokens = static_cast<double>(config.train.batch * config.data.sequence_length);
  const bool balances =
      config.routing.balance_weight > 0 && config.routing.balance_scope != BalanceScope::kDocument;
  const bool has_losses =
      config.model.moe_layers() > 0 && (balances || config.routing.z_weight > 0);
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

ModelDescription describe(const RunConfig& config, const ChunkSource& source) {
  return {config.model,           config.data.sequence_length,
          source.eos_id(),        config.document_attention,
          config.eos_routes_with, config.routing};
}

namespace {

// A run under way on this rank.
class Run {
 public:
  Run(const RunConfig& config, const Mesh& mesh, const TrainOptions& options)
      : config_(config),
        mesh_(mesh),
        options_(options),
        total_(config.total_steps()),
        step_options_(step_options_of(config)) {}

  // Collective, first: opens the data, makes the model and fills it.
  absl::Status start();
  bool done() const { return now_.position.step >= total_; }
  // Collective. Cancelled where a signal asks the run to stop: then nothing was done.
  absl::Status take_step(Progress* progress);
  // Collective, last: saves what is not saved yet.
  absl::StatusOr<RunOutcome> finish(RunEnd end);
  // Collective. After a step's rows could not be read: saves what the steps before have learnt, and
  // answers the error with what became of it.
  absl::Status save_after(const absl::Status& error);
  bool data_failed() const { return data_failed_; }

  int64_t total() const { return total_; }
  int64_t steps_done() const { return now_.position.step; }

 private:
  // Collective. The rows of the next step; Cancelled as take_step().
  absl::StatusOr<StepBatches> load();
  // Collective. Evaluation and metrics of the step just taken, where they are due.
  absl::Status report(const StepBatches& batches, const StepResult& result, double seconds);
  // Collective; every rank gets the same answer.
  absl::Status save();
  DataRecord data_record() const;
  // Its first sequence is where the run began with it. InvalidArgument as MixOrder::check_epochs().
  absl::Status begin_data();

  const RunConfig& config_;
  const Mesh& mesh_;
  const TrainOptions& options_;
  const int64_t total_;  // steps
  StepOptions step_options_;
  RunData data_;
  std::unique_ptr<StepReader> reader_;
  std::unique_ptr<Stepper> stepper_;
  ModelDescription description_;
  std::optional<MetricsLog> log_;  // of the first rank
  RunStart now_;                   // where the run is
  int64_t first_step_ = 0;         // done before this run
  double seconds_waited_ = 0;      // for the rows of the last step
  bool data_failed_ = false;       // the rows of a step could not be read
  double first_seconds_ = 0;       // of this run's first step
  double later_seconds_ = 0;       // of those after it
  std::string checkpoint_;         // newest
  int64_t saved_step_ = 0;         // its step
};

absl::Status Run::start() {
  absl::StatusOr<RunData> data = open_run_data(config_);
  absl::Status status = agree(*mesh_.world, data.status());
  if (!status.ok()) return status;
  data_ = *std::move(data);
  status = agree_on_data(*data_.source, mesh_);
  if (!status.ok()) return status;
  absl::StatusOr<RunOrigin> origin = find_origin(config_, mesh_);
  if (!origin.ok()) return origin.status();
  if (origin->resumes) checkpoint_ = origin->checkpoint;
  absl::StatusOr<ExpertOrder> order = expert_order_for_run(config_, *origin, mesh_);
  if (!order.ok()) return order.status();
  stepper_ = std::make_unique<Stepper>(config_, mesh_, *order);
  absl::StatusOr<RunStart> start =
      start_run(config_, *origin, *data_.source, mesh_, stepper_->model(), stepper_->optimizer());
  if (!start.ok()) return start.status();
  stepper_->copy_from_host();
  now_ = *std::move(start);
  first_step_ = saved_step_ = now_.position.step;
  status = begin_data();
  if (!status.ok()) return status;
  now_.position.data_fingerprint = data_.source->fingerprint();
  now_.position.config = to_pairs(config_);
  description_ = describe(config_, *data_.source);
  reader_ = std::make_unique<StepReader>(data_, config_, mesh_,
                                         ReadAhead{now_.position.sequences, total_ - first_step_,
                                                   read_ahead_depth(config_, mesh_.world->size())});
  absl::StatusOr<std::optional<MetricsLog>> log = open_log(config_, mesh_, first_step_);
  status = agree(*mesh_.world, log.status());
  if (status.ok()) log_ = *std::move(log);
  return status;
}

absl::StatusOr<StepBatches> Run::load() {
  const double waited_before = reader_->seconds_waited();
  absl::StatusOr<StepBatches> batches = reader_->next();
  seconds_waited_ = reader_->seconds_waited() - waited_before;
  absl::Status status =
      agree(*mesh_.world, !batches.ok()      ? batches.status()
                          : stop_requested() ? absl::CancelledError("stopped by a signal")
                                             : absl::OkStatus());
  data_failed_ = !status.ok() && !absl::IsCancelled(status);
  if (!status.ok()) return status;
  return batches;
}

absl::Status Run::take_step(Progress* progress) {
  const auto begin = std::chrono::steady_clock::now();
  absl::StatusOr<StepBatches> batches = load();
  if (!batches.ok()) return batches.status();
  TrainingPosition& position = now_.position;
  const int64_t step = position.step + 1;
  step_options_.learning_rate =
      position.schedule_start.step >= 0
          ? learning_rate_from(position.schedule_start, config_.schedule, step, total_)
          : learning_rate(config_.schedule, step, total_);
  step_options_.want_exchange = step % config_.train.log_every == 0 || step == total_;
  if (config_.routing.pool_schedule.steps > 0) {
    step_options_.pass.pool = scheduled_policy(config_.routing.pool, config_.routing.pool_schedule,
                                               config_.model.routed_experts(), position.step);
  }
  const StepResult result = stepper_->step(*batches, step_options_);
  if (!result.finite()) return not_finite(mesh_, result, step, stepper_.get());
  if (position.step == first_step_ && mesh_.is_first()) say_if_few_labels(config_, result);

  position.step = step;
  position.learning_rate = step_options_.learning_rate;
  position.sequences += config_.train.batch;
  position.tokens += config_.train.batch * config_.data.sequence_length;
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  (step == first_step_ + 1 ? first_seconds_ : later_seconds_) += seconds;
  absl::Status status = report(*batches, result, seconds);
  if (status.ok() && config_.checkpoint.every > 0 && step % config_.checkpoint.every == 0) {
    status = save();
  }
  if (!status.ok()) return status;
  progress->update(step, absl::StrFormat("loss %.3f  lr %.1e", result.cross_entropy(),
                                         step_options_.learning_rate));
  return absl::OkStatus();
}

absl::Status Run::report(const StepBatches& batches, const StepResult& result, double seconds) {
  const TrainingPosition& position = now_.position;
  const bool observes =
      options_.observer && (position.step % config_.eval.every == 0 || position.step == total_);
  Metrics observed;
  if (observes) {
    const int64_t later = position.step - first_step_ - 1;
    const double mean = later > 0 ? later_seconds_ / static_cast<double>(later) : first_seconds_;
    absl::StatusOr<Metrics> metrics =
        options_.observer({stepper_.get(), mean, later == 0, &now_.position.evaluation});
    if (!metrics.ok()) return metrics.status();
    observed = *std::move(metrics);
  }
  int64_t filtered = batches.filtered;
  if (config_.data.repetition_filter && step_options_.want_exchange) {
    mesh_.world->all_reduce(at::from_blob(&filtered, {1}, at::kLong), ReduceOp::kSum);
  }
  if (!log_.has_value() || !(step_options_.want_exchange || observes)) return absl::OkStatus();
  Metrics metrics =
      step_metrics(config_, result, step_options_.learning_rate, seconds, seconds_waited_,
                   flops_per_token(config_.model, batches.attention_ends), position.tokens, mesh_);
  if (config_.data.repetition_filter && step_options_.want_exchange) {
    metrics.emplace_back(
        "train/masked instances (%)",
        100 * static_cast<double>(filtered) / static_cast<double>(config_.train.batch));
  }
  metrics.insert(metrics.end(), observed.begin(), observed.end());
  const absl::Status logged = log_->write(position.step, metrics);
  if (!logged.ok()) std::fprintf(stderr, "emo: %s\n", std::string(logged.message()).c_str());
  return absl::OkStatus();
}

absl::Status Run::begin_data() {
  const int64_t first = now_.position.data_start;
  data_.loader.first_sequence = first;
  if (!data_.loader.mix) return absl::OkStatus();
  return data_.loader.mix->check_epochs(total_ * config_.train.batch - first);
}

DataRecord Run::data_record() const {
  DataRecord record{data_.source->fingerprint(), data_.source->files(), {}};
  if (data_.loader.mix) {
    const TrainingPosition& at = now_.position;
    record.sources = data_.loader.mix->positions(at.sequences - at.data_start);
  }
  return record;
}

absl::Status Run::save() {
  stepper_->copy_to_host();
  const Model& model = *stepper_->model();
  const std::string bad = first_bad_tensor(model.layout, model.parameters);
  absl::Status status =
      agree(*mesh_.world,
            bad.empty() ? absl::OkStatus()
                        : absl::AbortedError("not saved: parameter " + bad + " is not finite"));
  if (!status.ok()) return status;
  CheckpointContents contents{&model,        stepper_->optimizer(), &description_,
                              now_.position, data_.tokenizer,       now_.pruning};
  contents.precision = stepper_->parameter_precision();
  if (done() && config_.checkpoint.last == RunConfig::Checkpoint::Last::kModel) {
    contents.optimizer = nullptr;
  }
  contents.data = to_json(data_record());
  absl::StatusOr<std::string> folder =
      write_checkpoint(posix_file_system(), mesh_, config_.run.folder, contents);
  if (!folder.ok()) return folder.status();
  checkpoint_ = *std::move(folder);
  saved_step_ = now_.position.step;
  absl::Status removed;
  if (mesh_.is_first()) {
    removed =
        remove_old_checkpoints(posix_file_system(), config_.run.folder, config_.checkpoint.keep);
  }
  return agree(*mesh_.world, removed);
}

absl::StatusOr<RunOutcome> Run::finish(RunEnd end) {
  if (saved_step_ < now_.position.step) {
    absl::Status status = save();
    if (!status.ok()) return status;
  }
  return RunOutcome{end, checkpoint_};
}

absl::Status Run::save_after(const absl::Status& error) {
  const bool has_learnt = saved_step_ < now_.position.step;
  const absl::Status saved = has_learnt ? save() : absl::OkStatus();
  std::string what = "; no step was lost";
  if (has_learnt) what = absl::StrCat("; the run was saved in ", checkpoint_);
  if (!saved.ok()) what = absl::StrCat("; the run was not saved: ", saved.message());
  return {error.code(), absl::StrCat("reading the rows of step ", now_.position.step + 1, ": ",
                                     error.message(), what)};
}

}  // namespace

absl::StatusOr<RunOutcome> train(const RunConfig& config, const Mesh& mesh,
                                 const TrainOptions& options) {
  Run run(config, mesh, options);
  absl::Status status = run.start();
  if (!status.ok()) return status;
  watch_stop_signals();
  Progress progress("train", run.total(), "steps", options.show_progress && mesh.is_first());
  progress.update(run.steps_done());
  while (status.ok() && !run.done()) status = run.take_step(&progress);
  if (absl::IsCancelled(status)) return run.finish(RunEnd::kStopped);
  if (!status.ok()) return run.data_failed() ? run.save_after(status) : status;
  return run.finish(RunEnd::kDone);
}

}  // namespace emo

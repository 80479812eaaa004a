#include "train/train_command.h"

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "data/program/exit_code.h"
#include "parallel/agreement.h"
#include "parallel/parallel_for.h"
#include "train/step/device.h"
#include "train/step/precision.h"
#include "train/trainer.h"

namespace emo {
namespace {

struct Options {
  std::string config;
  std::vector<std::string> overrides;
  bool quiet = false;
};

void print_head(const RunConfig& config, const Mesh& mesh) {
  const ParameterCounts counts = count_parameters(config.model);
  std::fprintf(stderr, "%s", to_yaml(config).c_str());
  std::fprintf(stderr,
               "emo: %.2fM parameters, %.2fM active; dp %lld x ep %lld, %d threads a rank, %s on "
               "%s, products by %s\n",
               static_cast<double>(counts.total) / 1e6, static_cast<double>(counts.active) / 1e6,
               static_cast<long long>(mesh.dp->size()), static_cast<long long>(mesh.ep->size()),
               num_threads(), precision_name(config.parallel.precision),
               device_name(config.parallel.device), products_by(config));
}

absl::StatusOr<int> run(const Options& options, const ObserverFactory& observe) {
  absl::StatusOr<RunConfig> config = read_run_config(options.config, options.overrides);
  if (!config.ok()) return config.status();
  absl::StatusOr<Mesh> mesh = open_mesh_for(*config);
  if (!mesh.ok()) return mesh.status();
  config->parallel.precision = choose_precision(*config, *mesh);
  if (mesh->is_first() && !options.quiet) print_head(*config, *mesh);
  TrainOptions train_options;
  train_options.show_progress = !options.quiet;
  absl::StatusOr<Observer> observer = observe(*config, *mesh);
  if (!observer.ok()) return observer.status();
  train_options.observer = *std::move(observer);
  absl::StatusOr<RunOutcome> outcome = train(*config, *mesh, train_options);
  if (!outcome.ok()) return outcome.status();
  const bool done = outcome->end == RunEnd::kDone;
  if (mesh->is_first()) {
    std::fprintf(stderr, "emo: %s; the model is in %s\n",
                 done ? "done" : "stopped by a signal, start the same command again",
                 outcome->checkpoint.c_str());
  }
  return done ? kExitDone : kExitStopped;
}

}  // namespace

Command train_command(ObserverFactory observe) {
  auto options = std::make_shared<Options>();
  Command command;
  command.name = "train";
  command.summary = "Train a model; the same command goes on where it stopped";
  command.options.add("CONFIG", &options->config, "YAML file, see configs/ and docs/config.md")
      .required();
  command.options.add("OVERRIDE", &options->overrides, "section.key=value, checked like the file");
  command.options.add("--quiet", &options->quiet, "no config, no progress line");
  command.footer =
      "Example: mpirun -n 2 emo train configs/tiny.yaml parallel.ep=2 train.steps=100\n"
      "Exits 75 after SIGTERM, SIGINT or SIGUSR1, with a checkpoint saved.";
  command.run = [options, observe = std::move(observe)] { return run(*options, observe); };
  return command;
}

}  // namespace emo

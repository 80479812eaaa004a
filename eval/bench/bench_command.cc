#include "eval/commands.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "data/program/exit_code.h"
#include "eval/bench/bench_data.h"
#include "eval/bench/bench_exchange.h"
#include "eval/bench/bench_step.h"
#include "eval/open/mesh_options.h"
#include "parallel/mpi_communicator.h"
#include "train/step/device.h"
#include "train/step/precision.h"

namespace emo {
namespace {

struct StepBench {
  std::string config;
  std::vector<std::string> overrides;
  BenchOptions bench;
  bool json = false;
};

void print_step(const OrderedJson& result) {
  const auto number = [&](const char* key) { return result[key].get<double>(); };
  std::printf("tokens/s            %12.0f   (%.3f s a step, %d ranks x %d threads)\n",
              number("tokens_per_second"), number("seconds_per_step"), result["ranks"].get<int>(),
              result["threads_per_rank"].get<int>());
  std::printf("model FLOPs/token   %12.3g   (the reference counts %.3g)\n",
              number("flops_per_token"), number("reference_flops_per_token"));
  std::printf("matrix-product peak %12.1f   GFLOP/s in %s by %s, measured between steps\n",
              number("gemm_peak_flops") / 1e9, result["precision"].get<std::string>().c_str(),
              result["products"].get<std::string>().c_str());
  std::printf("fraction of peak    %11.1f%%   (forward and backward alone: %.1f%%)\n",
              100 * number("peak_fraction"), 100 * number("peak_fraction_forward_backward"));
  std::printf("peak memory         %12.0f   MiB on the largest rank\n",
              number("peak_memory_bytes") / (1 << 20));
  if (number("exchange_bytes_per_step") > 0) {
    std::printf("expert exchange     %12.1f   MB that a rank sends in a step\n",
                number("exchange_bytes_per_step") / 1e6);
  }
  if (result.contains("expert_rows_max_over_mean")) {
    std::printf("busiest rank        %12.2f   x the mean of rows for experts\n",
                number("expert_rows_max_over_mean"));
  }
  if (result.contains("exchange_wait_seconds_per_step")) {
    std::printf("waiting there       %12.1f   ms in a step\n",
                1e3 * number("exchange_wait_seconds_per_step"));
  }
  std::printf("time:");
  for (const auto& [kind, share] : result["share"].items()) {
    std::printf(" %s %.1f%%", kind.c_str(), 100 * share.get<double>());
  }
  std::printf("\n");
}

absl::StatusOr<int> run(const StepBench& options) {
  absl::StatusOr<RunConfig> config = read_run_config(options.config, options.overrides);
  if (!config.ok()) return config.status();
  absl::StatusOr<Mesh> mesh = open_mesh_for(*config);
  if (!mesh.ok()) return mesh.status();
  config->parallel.precision = choose_precision(*config, *mesh);
  absl::StatusOr<OrderedJson> result = bench_step(*config, *mesh, options.bench);
  if (!result.ok()) return result.status();
  if (mesh->is_first() && options.json) std::printf("%s", to_text(*result).c_str());
  if (mesh->is_first() && !options.json) print_step(*result);
  return kExitDone;
}

struct DataBench {
  std::string config;
  std::vector<std::string> overrides;
  DataBenchOptions bench;
  bool json = false;
};

struct ExchangeBench {
  ExchangeBenchOptions bench;
  bool json = false;
};

void print_pools(const OrderedJson& result) {
  std::printf("%d ranks, %d tokens each, width %d, %d experts, %d per token\n",
              result["ranks"].get<int>(), result["tokens_per_rank"].get<int>(),
              result["width"].get<int>(), result["experts"].get<int>(), result["top_k"].get<int>());
  std::printf("%-8s %14s %14s %10s %10s %10s %10s %10s %10s %10s\n", "pool", "copies/token",
              "one/expert", "ms", "ms wait", "ms naive", "ms bare", "over bare", "over sent",
              "max/mean");
  for (const auto& [pool, row] : result["pools"].items()) {
    const auto number = [&row = row](const char* key) { return row[key].get<double>(); };
    const auto waits = row["wait_seconds"].get<std::vector<double>>();
    std::printf("%-8s %14.3f %14.3f %10.3f %10.3f %10.3f %10.3f %10.2f %10.2f %10.2f\n",
                pool.c_str(), number("copies_per_token"), number("naive_copies_per_token"),
                1e3 * number("seconds"), 1e3 * *std::max_element(waits.begin(), waits.end()),
                1e3 * number("naive_seconds"), 1e3 * number("bare_seconds"), number("over_bare"),
                number("over_bare_travelling"), number("rows_max_over_mean"));
  }
}

absl::StatusOr<int> run(const DataBench& options) {
  absl::StatusOr<RunConfig> config = read_run_config(options.config, options.overrides);
  if (!config.ok()) return config.status();
  const absl::StatusOr<OrderedJson> result = bench_data(*config, options.bench);
  if (!result.ok()) return result.status();
  if (options.json) {
    std::printf("%s", to_text(*result).c_str());
    return kExitDone;
  }
  for (const auto& [name, value] : result->items()) {
    std::printf("%-24s %s\n", name.c_str(), value.dump().c_str());
  }
  return kExitDone;
}

absl::StatusOr<int> run(const ExchangeBench& options) {
  absl::StatusOr<Mesh> mesh = open_mesh({});
  if (!mesh.ok()) return mesh.status();
  const absl::StatusOr<OrderedJson> result = bench_exchange(*mesh, options.bench);
  if (!result.ok()) return result.status();
  if (mesh->is_first() && options.json) std::printf("%s", to_text(*result).c_str());
  if (mesh->is_first() && !options.json) print_pools(*result);
  return kExitDone;
}

}  // namespace

Command bench_step_command() {
  auto options = std::make_shared<StepBench>();
  Command command;
  command.name = "bench step";
  command.summary = "Speed of a config's training step, and where its time goes";
  command.options.add("CONFIG", &options->config, "YAML file").required();
  command.options.add("OVERRIDE", &options->overrides, "section.key=value");
  command.options.add("--steps", &options->bench.steps, "timed steps; the median counts")
      .range(1, 100000)
      .show_default();
  command.options.add("--warmup", &options->bench.warmup_steps, "steps before")
      .range(0, 100000)
      .show_default();
  command.options.add("--trace", &options->bench.trace,
                      "write a timeline of the last step, for ui.perfetto.dev or chrome://tracing");
  command.options.add("--overwrite", &options->bench.overwrite, "replace the timeline");
  command.options.add("--json", &options->json, "one JSON object on standard output");
  command.footer = "Example: OMP_NUM_THREADS=2 emo bench step configs/bench-107m.yaml --json";
  command.run = [options] { return run(*options); };
  return command;
}

Command bench_data_command() {
  auto options = std::make_shared<DataBench>();
  Command command;
  command.name = "bench data";
  command.summary = "How fast a config's data opens, and how fast one thread makes rows of it";
  command.options.add("CONFIG", &options->config, "YAML file").required();
  command.options.add("OVERRIDE", &options->overrides, "section.key=value");
  command.options.add("--rows", &options->bench.rows, "rows that are read, again and again")
      .range(1, 1e9)
      .show_default();
  command.options.add("--passes", &options->bench.passes, "over them; the fastest counts")
      .range(1, 1000)
      .show_default();
  command.options.add("--cover", &options->bench.cover,
                      "go through a whole epoch's order: no chunk may stand in it twice");
  command.options.add("--steps", &options->bench.steps, "steps that wait for rows of theirs")
      .range(0, 1e9)
      .show_default();
  command.options.add("--step-seconds", &options->bench.step_seconds, "that each of them computes")
      .range(0, 1e6)
      .show_default();
  command.options
      .add("--read-delay-ms", &options->bench.read_delay_ms,
           "that every read of a file takes longer, as over a\nnetwork")
      .range(0, 1e6)
      .show_default();
  command.options.add("--json", &options->json, "one JSON object on standard output");
  command.footer =
      "Example: emo bench data configs/quickstart-emo.yaml data.path=data/train --json";
  command.run = [options] { return run(*options); };
  return command;
}

Command bench_exchange_command() {
  auto options = std::make_shared<ExchangeBench>();
  ExchangeBenchOptions& o = options->bench;
  Command command;
  command.name = "bench exchange";
  command.summary = "Cost of moving tokens to experts on other ranks, beside the naive path";
  command.options.add("--tokens", &o.tokens, "tokens of each rank").show_default();
  command.options.add("--width", &o.width, "model width").show_default();
  command.options.add("--experts", &o.experts, "routed experts").show_default();
  command.options.add("--top-k", &o.top_k, "routed experts of a token").show_default();
  command.options.add("--document-length", &o.document_length, "tokens of a document")
      .show_default();
  command.options.add("--pools", &o.pools, "sizes of the documents' pools: N, MIN-MAX or none")
      .commas()
      .show_default();
  command.options.add("--repeats", &o.repeats, "the median of so many counts").show_default();
  command.options.add("--seed", &o.seed, "of logits and pool sizes").show_default();
  command.options.add("--json", &options->json, "one JSON object on standard output");
  command.footer =
      "over bare: time over two all-to-all calls of all rows, a rank's own among them; over sent:\n"
      "over two of the rows that travel alone. Neither call packs rows or adds them up.\n"
      "Example: mpirun -n 4 emo bench exchange --pools 8,32,none --json";
  command.run = [options] { return run(*options); };
  return command;
}

}  // namespace emo

#include "eval/bench/bench_step.h"

#include <sys/resource.h>

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rand.h>

#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/files/file_system.h"
#include "eval/bench/device_trace.h"
#include "eval/bench/median.h"
#include "eval/open/output_file.h"
#include "model/host/linear.h"
#include "model/host/stored.h"
#include "model/profile.h"
#include "parallel/agreement.h"
#include "parallel/parallel_for.h"
#include "train/plan/flops.h"
#include "train/run_start.h"
#include "train/step/device.h"
#include "train/step/precision.h"
#include "train/step/step_batches.h"
#include "train/trainer.h"

namespace emo {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

constexpr int64_t kPeakSize = 1536;

// FLOP/s of large square products of a, of the pass's type E, with fp32 weights b, one on each
// thread at a time, the best of a few: what the machine gives at most, without meeting points
// between threads.
template <typename E>
double measure_gemm(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c) {
  constexpr int64_t n = kPeakSize;
  double best = 0;
  for (int i = 0; i < 3; ++i) {
    const Clock::time_point begin = Clock::now();
    parallel_tasks(num_threads(), [&](int64_t thread) {
      linear(n, n, n, {a.const_data_ptr<E>(), n}, {b.const_data_ptr<float>(), n}, 0,
             {c.mutable_data_ptr<float>() + thread * n * n, n});
    });
    const auto products = static_cast<double>(2 * n * n * n * num_threads());
    best = std::max(best, products / seconds_since(begin));
  }
  return best;
}

// Factors and memory of the products that the peak is measured with.
struct Factors {
  at::Tensor a, b, c;
};

Factors make_factors(const RunConfig& config) {
  const bool bf16 = config.parallel.precision == Precision::kBf16;
  if (config.parallel.device == DeviceKind::kCpu) {
    const at::Tensor a = at::rand({kPeakSize, kPeakSize});
    return {bf16 ? a.to(at::kBFloat16) : a, at::rand({kPeakSize, kPeakSize}),
            at::empty({num_threads(), kPeakSize, kPeakSize})};
  }
  // A GPU needs larger ones; emulated, they are libtorch's on the CPU.
  const int64_t n = config.parallel.device == DeviceKind::kCuda ? 8192 : 512;
  const auto options =
      at::TensorOptions().device(device_of(config)).dtype(bf16 ? at::kBFloat16 : at::kFloat);
  return {at::rand({n, n}, options), at::rand({n, n}, options), at::empty({n, n}, options)};
}

// FLOP/s of libtorch's product where the run computes, the best of a few.
double measure_device_gemm(const Factors& f) {
  const auto n = static_cast<double>(f.a.size(0));
  at::Tensor c = f.c;
  const auto finish = [&] { return c.slice(0, 0, 1).cpu(); };  // waits for the device
  double best = 0;
  for (int i = 0; i < 3; ++i) {
    finish();
    const Clock::time_point begin = Clock::now();
    at::mm_out(c, f.a, f.b);
    finish();
    best = std::max(best, 2 * n * n * n / seconds_since(begin));
  }
  return best;
}

double peak_flops(const RunConfig& config, const Factors& f) {
  if (config.parallel.device != DeviceKind::kCpu) return measure_device_gemm(f);
  return with_element(config.parallel.precision,
                      [&](auto element) { return measure_gemm<decltype(element)>(f.a, f.b, f.c); });
}

int64_t peak_memory_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

// What tensors took of a GPU's memory; 0 where the run computes on the CPU.
int64_t peak_device_bytes(const RunConfig& config) {
  const at::Device device = device_of(config);
  if (device.is_cpu()) return 0;
  const auto stats = at::getDeviceAllocator(device.type())->getDeviceStats(device.index());
  return stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)]
      .peak;
}

// What the exchange of experts' rows cost in the timed steps, where it was counted: experts on
// several ranks, and on the CPU.
struct ExchangeCost {
  double busiest = 0;  // pairs of the rank that had most, layer by layer
  double mean = 0;     // pairs of a rank
  double waited = 0;   // seconds, mean over ranks

  // `counted`: by rank and layer, of one step.
  void add(const std::vector<std::vector<ExchangeCounters>>& counted) {
    if (counted.empty()) return;
    const auto ranks = static_cast<double>(counted.size());
    for (size_t layer = 0; layer < counted[0].size(); ++layer) {
      double most = 0;
      for (const std::vector<ExchangeCounters>& rank : counted) {
        most = std::max(most, rank[layer].pairs);
        mean += rank[layer].pairs / ranks;
        waited += rank[layer].waited / ranks;
      }
      busiest += most;
    }
  }
  void report(int64_t steps, OrderedJson* result) const {
    if (mean == 0) return;
    (*result)["exchange_wait_seconds_per_step"] = waited / static_cast<double>(steps);
    (*result)["expert_rows_max_over_mean"] = busiest / mean;
  }
};

// Collective. The events of all ranks in one file.
absl::Status write_trace(const Mesh& mesh, const std::string& path, const std::string& events) {
  absl::Status status;
  const std::vector<std::string> of_ranks = gather_texts(*mesh.world, events);
  if (mesh.is_first()) {
    status = write_file_durably(
        posix_file_system(), path,
        absl::StrCat("{\"traceEvents\": [\n", absl::StrJoin(of_ranks, ",\n"), "\n]}\n"));
  }
  return agree(*mesh.world, status);
}

}  // namespace

absl::StatusOr<OrderedJson> bench_step(const RunConfig& config, const Mesh& mesh,
                                       const BenchOptions& options) {
  absl::StatusOr<std::unique_ptr<ChunkSource>> source = open_source(config);
  absl::Status status = agree(*mesh.world, source.status());
  if (!status.ok()) return status;
  if (!options.trace.empty()) {  // what is written at the end must be possible from the start
    status = agree(*mesh.world, check_new_file(options.trace, options.overwrite));
    if (!status.ok()) return status;
  }
  absl::StatusOr<ExpertOrder> order = placement_of_config(config);
  status = agree(*mesh.world, order.status());
  if (!status.ok()) return status;
  const std::unique_ptr<Stepper> stepper = make_stepper(config, mesh, *std::move(order));
  status = start_weights(config, mesh, stepper->model());
  if (!status.ok()) return status;
  stepper->taken();
  Profile profile;
  Trace trace(num_threads());
  StepOptions step_options = step_options_of(config);
  step_options.learning_rate = config.schedule.peak * 0.1;
  step_options.profile = &profile;
  step_options.want_exchange = true;

  const Factors factors = make_factors(config);
  std::vector<double> totals, forward_backwards, gemms;
  double flops = 0;
  double loss = 0;
  ExchangeCost exchange_cost;
  double exchanged = 0;  // bytes that this rank sent to experts elsewhere and back, timed steps
  std::array<double, kWorkKinds> work{};
  for (int64_t step = 0; step < options.warmup_steps + options.steps; ++step) {
    const absl::StatusOr<StepBatches> batches =
        load_step(**source, config, mesh, step * config.train.batch);
    status = agree(*mesh.world, batches.status());
    if (!status.ok()) return status;
    flops = flops_per_token(config.model, batches->attention_ends);
    const double gemm = peak_flops(config, factors);
    mesh.world->barrier();
    profile.clear();
    const bool traced = !options.trace.empty() && step + 1 == options.warmup_steps + options.steps;
    const bool on_cpu = config.parallel.device == DeviceKind::kCpu;
    if (traced && on_cpu) {
      profile = Profile(&trace);
      thread_pool().set_trace(&trace);
    }
    if (traced && !on_cpu && mesh.is_first()) start_device_trace(device_of(config));
    const Clock::time_point begin = Clock::now();
    const StepResult result = stepper->step(*batches, step_options);
    {
      // In training this hides behind the next step; here there is other work between steps.
      const Timed waiting(&profile, Work::kExchange);
      stepper->wait();
    }
    const double total = seconds_since(begin);
    if (traced && !on_cpu) {
      status =
          agree(*mesh.world, mesh.is_first() ? save_device_trace(options.trace) : absl::OkStatus());
      if (!status.ok()) return status;
    } else if (traced) {
      thread_pool().set_trace(nullptr);
      status = write_trace(mesh, options.trace, trace.to_events(mesh.world->rank(), begin));
      if (!status.ok()) return status;
    }
    if (step < options.warmup_steps) continue;
    totals.push_back(total);
    forward_backwards.push_back(total - profile.seconds(Work::kOptimizer));
    gemms.push_back(gemm);
    exchange_cost.add(result.exchange);
    loss = result.cross_entropy();
    for (const ExchangeCounters& layer : stepper->memory()->buffers.traffic)
      exchanged += layer.bytes;
    for (size_t kind = 0; kind < kWorkKinds; ++kind) {
      work[kind] += profile.seconds(static_cast<Work>(kind));
    }
  }

  // Over ranks: the slowest step, the sum of peaks, the largest memory, the mean of bytes sent.
  double seconds[2] = {median(totals), median(forward_backwards)};
  mesh.world->all_reduce(at::from_blob(seconds, {2}, at::kDouble), ReduceOp::kMax);
  double peak = *std::max_element(gemms.begin(), gemms.end());
  mesh.world->all_reduce(at::from_blob(&peak, {1}, at::kDouble), ReduceOp::kSum);
  double memory[2] = {static_cast<double>(peak_memory_bytes()),
                      static_cast<double>(peak_device_bytes(config))};
  mesh.world->all_reduce(at::from_blob(memory, {2}, at::kDouble), ReduceOp::kMax);
  mesh.world->all_reduce(at::from_blob(&exchanged, {1}, at::kDouble), ReduceOp::kSum);
  exchanged /= static_cast<double>(mesh.world->size() * options.steps);
  const auto tokens = static_cast<double>(config.train.batch * config.data.sequence_length);
  double spent = 0;
  for (const double total : totals) spent += total;
  double counted = 0;
  for (const double w : work) counted += w;
  work[static_cast<size_t>(Work::kOther)] += std::max(0.0, spent - counted);
  OrderedJson share = OrderedJson::object();
  for (size_t kind = 0; kind < kWorkKinds; ++kind) share[kWorkNames[kind]] = work[kind] / spent;
  OrderedJson report{{"tokens_per_second", tokens / seconds[0]},
                     {"peak_fraction", tokens * flops / seconds[0] / peak},
                     {"peak_fraction_forward_backward", tokens * flops / seconds[1] / peak},
                     {"gemm_peak_flops", peak},
                     {"flops_per_token", flops},
                     {"reference_flops_per_token",
                      reference_flops_per_token(config.model, config.data.sequence_length)},
                     {"seconds_per_step", seconds[0]},
                     {"loss", loss},
                     {"share", share},
                     {"exchange_bytes_per_step", exchanged},
                     {"peak_memory_bytes", static_cast<int64_t>(memory[0])},
                     {"peak_device_bytes", static_cast<int64_t>(memory[1])},
                     {"precision", precision_name(config.parallel.precision)},
                     {"products", products_by(config)},
                     {"device", device_name(config.parallel.device)},
                     {"ranks", mesh.world->size()},
                     {"threads_per_rank", num_threads()}};
  exchange_cost.report(options.steps, &report);
  return report;
}

}  // namespace emo

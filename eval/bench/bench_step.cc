#include "eval/bench/bench_step.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rand.h>

#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/files/file_system.h"
#include "eval/bench/device_trace.h"
#include "eval/bench/measure.h"
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

constexpr int64_t kPeakSize = 1536;

// FLOP/s of large square products of a, of the pass's type Stored, with fp32 weights b, one on each
// thread at a time, the best of a few: what the machine gives at most, without meeting points
// between threads.
template <typename Stored>
double measure_gemm(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c) {
  constexpr int64_t n = kPeakSize;
  double best = 0;
  for (int i = 0; i < 3; ++i) {
    const BenchClock::time_point begin = BenchClock::now();
    parallel_tasks(num_threads(), [&](int64_t thread) {
      linear(n, n, n, {a.const_data_ptr<Stored>(), n}, {b.const_data_ptr<float>(), n}, 0,
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
  const auto options = at::TensorOptions()
                           .device(device_of(config.parallel.device))
                           .dtype(bf16 ? at::kBFloat16 : at::kFloat);
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
    const BenchClock::time_point begin = BenchClock::now();
    at::mm_out(c, f.a, f.b);
    finish();
    best = std::max(best, 2 * n * n * n / seconds_since(begin));
  }
  return best;
}

double peak_flops(const RunConfig& config, const Factors& f) {
  if (config.parallel.device != DeviceKind::kCpu) return measure_device_gemm(f);
  return with_stored(f.a.scalar_type(),
                     [&](auto element) { return measure_gemm<decltype(element)>(f.a, f.b, f.c); });
}

// What tensors took of a GPU's memory; 0 where the run computes on the CPU.
int64_t peak_device_bytes(const RunConfig& config) {
  const at::Device device = device_of(config.parallel.device);
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
    // A device does not measure it.
    if (waited > 0)
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

// Collective. The timeline of one step.
class Tracer {
 public:
  Tracer(const RunConfig& config, const Mesh& mesh, std::string path)
      : config_(config), mesh_(mesh), path_(std::move(path)), trace_(num_threads()) {}

  // Before the step.
  void start(Profile* profile) {
    if (on_cpu()) {
      *profile = Profile(at::kCPU, &trace_);
      thread_pool().set_trace(&trace_);
    } else if (mesh_.is_first()) {
      start_device_trace(device_of(config_.parallel.device));
    }
  }
  // After it, which began at `begin`: writes the file.
  absl::Status finish(BenchClock::time_point begin) {
    if (on_cpu()) {
      thread_pool().set_trace(nullptr);
      return write_trace(mesh_, path_, trace_.to_events(mesh_.world->rank(), begin));
    }
    return agree(*mesh_.world, mesh_.is_first() ? save_device_trace(path_) : absl::OkStatus());
  }

 private:
  bool on_cpu() const { return config_.parallel.device == DeviceKind::kCpu; }
  const RunConfig& config_;
  const Mesh& mesh_;
  std::string path_;
  Trace trace_;
};

// What this rank saw of the timed steps.
struct Measured {
  std::vector<double> totals, forward_backwards;  // seconds
  std::vector<double> gemms;                      // FLOP/s of the peak, before each
  double flops = 0;                               // per token
  double loss = 0;                                // of the last one
  ExchangeCost exchange_cost;
  double exchanged = 0;  // bytes sent to experts elsewhere and back
  std::array<double, kWorkKinds> work{};

  void add(double seconds, double gemm, Profile* profile, const StepResult& result, int64_t rank) {
    totals.push_back(seconds);
    forward_backwards.push_back(seconds - profile->seconds(Work::kOptimizer));
    gemms.push_back(gemm);
    exchange_cost.add(result.exchange);
    loss = result.cross_entropy();
    if (!result.exchange.empty()) {
      for (const ExchangeCounters& layer : result.exchange[rank]) exchanged += layer.bytes;
    }
    for (size_t kind = 0; kind < kWorkKinds; ++kind) {
      work[kind] += profile->seconds(static_cast<Work>(kind));
    }
  }

  // The share of each kind of work, what was not counted among kOther.
  OrderedJson share() const {
    const double spent = std::accumulate(totals.begin(), totals.end(), 0.0);
    const double counted = std::accumulate(work.begin(), work.end(), 0.0);
    std::array<double, kWorkKinds> all = work;
    all[static_cast<size_t>(Work::kOther)] += std::max(0.0, spent - counted);
    OrderedJson json = OrderedJson::object();
    for (size_t kind = 0; kind < kWorkKinds; ++kind) json[kWorkNames[kind]] = all[kind] / spent;
    return json;
  }
};

double reduced(Communicator& world, double value, ReduceOp op) {
  world.all_reduce(at::from_blob(&value, {1}, at::kDouble), op);
  return value;
}

// Collective. Over ranks: the slowest step, the sum of peaks, the largest memory, the mean of bytes
// sent.
OrderedJson report(const RunConfig& config, const Mesh& mesh, int64_t steps, const Measured& m) {
  Communicator& world = *mesh.world;
  const double seconds = reduced(world, median(m.totals), ReduceOp::kMax);
  const double forward_backward = reduced(world, median(m.forward_backwards), ReduceOp::kMax);
  const double peak =
      reduced(world, *std::max_element(m.gemms.begin(), m.gemms.end()), ReduceOp::kSum);
  const double memory = reduced(world, static_cast<double>(peak_memory_bytes()), ReduceOp::kMax);
  const double on_device =
      reduced(world, static_cast<double>(peak_device_bytes(config)), ReduceOp::kMax);
  const double exchanged = reduced(world, m.exchanged, ReduceOp::kSum);
  const auto tokens = static_cast<double>(config.train.batch * config.data.sequence_length);
  OrderedJson json{
      {"tokens_per_second", tokens / seconds},
      {"peak_fraction", tokens * m.flops / seconds / peak},
      {"peak_fraction_forward_backward", tokens * m.flops / forward_backward / peak},
      {"gemm_peak_flops", peak},
      {"flops_per_token", m.flops},
      {"reference_flops_per_token",
       reference_flops_per_token(config.model, config.data.sequence_length)},
      {"seconds_per_step", seconds},
      {"loss", m.loss},
      {"share", m.share()},
      {"exchange_bytes_per_step", exchanged / static_cast<double>(world.size() * steps)},
      {"peak_memory_bytes", static_cast<int64_t>(memory)},
      {"peak_device_bytes", static_cast<int64_t>(on_device)},
      {"precision", precision_name(config.parallel.precision)},
      {"products", products_by(config)},
      {"device", device_name(config.parallel.device)},
      {"ranks", world.size()},
      {"threads_per_rank", num_threads()}};
  m.exchange_cost.report(steps, &json);
  return json;
}

// Collective. A stepper with the weights that a new run would begin with.
absl::StatusOr<std::unique_ptr<Stepper>> start_stepper(const RunConfig& config, const Mesh& mesh) {
  absl::StatusOr<ExpertOrder> order = placement_of_config(config);
  absl::Status status = agree(*mesh.world, order.status());
  if (!status.ok()) return status;
  auto stepper = std::make_unique<Stepper>(config, mesh, *order);
  status = start_weights(config, mesh, stepper->model());
  if (!status.ok()) return status;
  stepper->copy_from_host();
  return stepper;
}

// Seconds of a step, updated parameters included.
double time_step(const StepBatches& batches, const StepOptions& options, Stepper* stepper,
                 StepResult* result) {
  const BenchClock::time_point begin = BenchClock::now();
  *result = stepper->step(batches, options);
  // In training this hides behind the next step; here there is other work between steps.
  const Timed waiting(options.profile, Work::kExchange);
  stepper->wait_for_parameters();
  return seconds_since(begin);
}

}  // namespace

absl::StatusOr<OrderedJson> bench_step(const RunConfig& config, const Mesh& mesh,
                                       const BenchOptions& options) {
  absl::StatusOr<RunData> data = open_run_data(config);
  absl::Status status = agree(*mesh.world, data.status());
  if (!status.ok()) return status;
  if (!options.trace.empty()) {  // what is written at the end must be possible from the start
    status = agree(*mesh.world, check_new_file(options.trace, options.overwrite));
    if (!status.ok()) return status;
  }
  absl::StatusOr<std::unique_ptr<Stepper>> stepper = start_stepper(config, mesh);
  if (!stepper.ok()) return stepper.status();
  Profile profile(device_of(config.parallel.device));
  Tracer tracer(config, mesh, options.trace);
  StepOptions step_options = step_options_of(config);
  step_options.learning_rate = config.schedule.peak * 0.1;
  step_options.profile = &profile;
  step_options.want_exchange = true;

  const Factors factors = make_factors(config);
  Measured measured;
  const int64_t steps = options.warmup_steps + options.steps;
  for (int64_t step = 0; step < steps; ++step) {
    const absl::StatusOr<StepBatches> batches =
        load_step(*data, config, mesh, step * config.train.batch);
    status = agree(*mesh.world, batches.status());
    if (!status.ok()) return status;
    measured.flops = flops_per_token(config.model, batches->attention_ends);
    const double gemm = peak_flops(config, factors);
    mesh.world->barrier();
    profile.clear();
    const bool traced = !options.trace.empty() && step + 1 == steps;
    if (traced) tracer.start(&profile);
    const BenchClock::time_point begin = BenchClock::now();
    StepResult result;
    const double seconds = time_step(*batches, step_options, stepper->get(), &result);
    if (traced) status = tracer.finish(begin);
    if (!status.ok()) return status;
    if (step < options.warmup_steps) continue;
    measured.add(seconds, gemm, &profile, result, mesh.world->rank());
  }
  return report(config, mesh, options.steps, measured);
}

}  // namespace emo

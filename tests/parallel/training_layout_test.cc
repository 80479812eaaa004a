// Whole training steps of the device path on every layout of the ranks, against the CPU path in one
// process: losses, gradient norms, counts and, after some steps, parameters and moments.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>

#include "absl/strings/str_format.h"
#include "eval/verify/golden_folder.h"
#include "parallel/self_communicator.h"
#include "tests/model/backends.h"
#include "tests/model/clear_routing.h"
#include "tests/model/random_batch.h"
#include "tests/model/sample_configs.h"
#include "tests/parallel/test_world.h"
#include "train/step/batch_tensors.h"
#include "train/step/training_step.h"

namespace emo {
namespace {

constexpr int64_t kS = 48;
constexpr int64_t kSteps = 3;

struct TrainingCase {
  int64_t rows;  // of each micro-batch
  int64_t micro_batches;
  BalanceScope scope;
  PoolPolicy::Kind pool;
  Recompute recompute = Recompute::kNone;
  int64_t slices = 1;
  at::ScalarType type = at::kFloat;
  bool reordered = false;  // ranks hold the experts in another order
  LossTokens losses_over = LossTokens::kAll;
  Freeze freeze = Freeze::kNone;
  GradientMemory gradients = GradientMemory::kWhole;
  bool budgets =
      false;  // layers have different numbers of experts; queries and keys are normalised
};

ModelConfig config_of(const TrainingCase& c) {
  ModelConfig config = small_config();
  config.d_expert = 16;
  config.d_ffn = 24;
  config.dense_layers = {1};
  config.qk_norm = c.budgets;
  if (c.budgets) config.experts_per_layer = {14, 14, 9};
  return config;
}

RoutingContract contract_of(const TrainingCase& c) {
  RoutingContract contract;
  contract.pool.kind = c.pool;
  contract.pool.min = 4;
  contract.pool.max = 20;
  contract.balance_scope = c.scope;
  contract.losses_over = c.losses_over;
  return contract;
}

ExpertOrder order_of(const TrainingCase& c) {
  ExpertOrder order;
  for (int64_t layer = 0; c.reordered && layer < config_of(c).n_layers; ++layer) {
    std::vector<int32_t>& experts = order.emplace_back();
    if (config_of(c).is_dense(layer)) continue;
    for (int64_t e = 0; e < 13; ++e) experts.push_back(static_cast<int32_t>((5 * e + layer) % 13));
  }
  return order;
}

StepOptions options_of(const TrainingCase& c) {
  StepOptions options;
  options.learning_rate = 0.01;
  options.clip = 0.5;
  options.pass.seed = 77;
  options.pass.recompute = c.recompute;
  // Where a gradient is zero but for rounding, an update is not its sign.
  options.adamw.epsilon = 1e-3;
  return options;
}

// This rank's rows of a step.
struct Rows {
  std::vector<MicroBatch> micro_batches;
  int64_t share = 0;
};
Rows rows_of_step(const TrainingCase& c, int64_t step, int64_t slices, int64_t rank,
                  int64_t world) {
  Rows rows;
  for (int64_t m = 0; m < c.micro_batches; ++m) {
    Batch all = random_batch(c.rows, kS, 61, 9, static_cast<uint64_t>(100 * step + m),
                             (step * c.micro_batches + m) * c.rows);
    if (c.losses_over == LossTokens::kLabelled) predict_answers_alone(&all);
    const Batch mine = rows_of(all, rank, world);
    rows.share += divisor_share(mine);
    MicroBatch& cut = rows.micro_batches.emplace_back();
    for (int64_t s = 0; s < slices; ++s) cut.push_back(to_tensors(rows_of(mine, s, slices)));
  }
  return rows;
}

bool close(double found, double expected, double tolerance) {
  return std::abs(found - expected) <= tolerance * std::abs(expected);
}

// Parameters and moments by name, and the results of the steps.
struct Trained {
  std::vector<StepResult> results;
  std::map<std::string, at::Tensor> tensors;
};

void take_tensors(const Mesh& mesh, const Model& model, const OptimizerState& optimizer,
                  Trained* run) {
  const FlatBuffers first = gather_owned(mesh, model.layout, optimizer.exp_avg);
  const FlatBuffers second = gather_owned(mesh, model.layout, optimizer.exp_avg_sq);
  const bool own_masters = !optimizer.master.dense.defined();
  const FlatBuffers masters =
      own_masters ? model.parameters : gather_owned(mesh, model.layout, optimizer.master);
  for (const ParameterInfo& p : model.layout.parameters) {
    const auto take = [&](const char* kind, const FlatBuffers& buffers) {
      const at::Tensor& buffer =
          p.buffer == ParameterBuffer::kDense ? buffers.dense : buffers.experts;
      run->tensors[kind + p.name] = buffer.slice(0, p.offset, p.offset + p.numel()).cpu().clone();
    };
    take("", masters);
    take("exp_avg/", first);
    take("exp_avg_sq/", second);
  }
}

// Where and how a run trains.
struct Place {
  const Mesh& mesh;
  On where;
  uint64_t seed;    // of the weights
  float moved = 0;  // see fill_random()
};

// `gap`, where not null, becomes the smallest of all steps.
Trained train(const Place& at, const TrainingCase& c, const StateOptions& how, int64_t slices,
              Recompute recompute, double* gap = nullptr) {
  const Mesh& mesh = at.mesh;
  TrainingState state(config_of(c), contract_of(c), kS, mesh.position(), how);
  const Model host(config_of(c), contract_of(c), kS, mesh.position(), how.order);
  fill_random(host, at.seed, at.moved);
  load_parameters(host.parameters, &state.model);
  load_masters(state.model.layout, host.parameters, &state.optimizer);
  Trained run;
  StepOptions options = options_of(c);
  options.pass.recompute = recompute;
  if (gap != nullptr) *gap = RoutingGap::kNone;
  for (int64_t step = 0; step < kSteps; ++step) {
    const Rows rows = rows_of_step(c, step, slices, mesh.world->rank(), mesh.world->size());
    wait_for_parameters(&state);
    for (size_t m = 0; gap != nullptr && m < rows.micro_batches.size(); ++m) {
      *gap =
          std::min(*gap, gap_of_pass(state.model, rows.micro_batches[m][0], options.pass).choice());
    }
    run.results.push_back(training_step(mesh, rows.micro_batches, rows.share, options, &state));
  }
  wait_for_parameters(&state);
  EXPECT_EQ(state.optimizer.step, kSteps);
  take_tensors(mesh, state.model, state.optimizer, &run);
  return run;
}

// The reference: one process, on the host, in fp32.
Trained run_in_one_process(const TrainingCase& c, uint64_t seed, float moved, double* gap) {
  const auto mesh = make_mesh(self_communicator(), 1, 1);
  StateOptions how;
  how.freeze = c.freeze;
  return train({*mesh, On::kHost, seed, moved}, c, how, /*slices=*/1, Recompute::kNone, gap);
}

Trained run_on_ranks(const Mesh& mesh, On where, const TrainingCase& c, uint64_t seed) {
  return train({mesh, where, seed}, c,
               {order_of(c), c.gradients, c.freeze, make_backend_on(where, test_device(), c.type)},
               c.slices, c.recompute);
}

// How far a run may be from another that computes the same in another order.
struct Bounds {
  double cross_entropy, norm, router;  // relative
  double tensor;                       // fp32: of each tensor's largest entry
  double parameters, moments;          // bf16: of the norm of all of a kind
};
Bounds bounds_of(const TrainingCase& c) {
  if (c.type == at::kFloat) return {2e-6, 2e-5, 1e-5, 1e-4, 0, 0};
  // Wrong parts, stale parameters or lost rows exceed these.
  return {0.02, 0.2, 0.1, 0, 0.02, 0.5};
}

// One process's run, and the same with weights that are moved by rounding (fp32).
struct Reference {
  Trained run, moved;
};

bool close_sums(const RouterSums& a, const RouterSums& b, bool exact, const Bounds& bounds) {
  return (!exact || a.counts == b.counts) && a.tokens == b.tokens && a.pool_size == b.pool_size &&
         a.documents == b.documents && close(a.balance, b.balance, bounds.router) &&
         close(a.z_squares, b.z_squares, bounds.router);
}

// What differs in the losses and counts of each step; "" where nothing does.
std::string differing_results(const Trained& many, const Trained& one, bool exact,
                              const Bounds& bounds) {
  std::string differing;
  for (int64_t step = 0; step < kSteps; ++step) {
    const StepResult& a = many.results[step];
    const StepResult& b = one.results[step];
    bool routers = a.divisor == b.divisor && a.sums.labels == b.sums.labels;
    for (size_t layer = 0; layer < b.sums.layers.size(); ++layer) {
      routers = routers && close_sums(a.sums.layers[layer], b.sums.layers[layer], exact, bounds);
    }
    const std::string at = " of step " + std::to_string(step) + "; ";
    if (!close(a.cross_entropy(), b.cross_entropy(), bounds.cross_entropy)) {
      differing += "cross-entropy" + at;
    }
    if (!close(a.gradient_norm, b.gradient_norm, bounds.norm)) differing += "norm" + at;
    if (!routers) differing += "router" + at;
  }
  return differing;
}

double largest_difference(const std::string& name, const Trained& a, const Trained& b) {
  return (a.tensors.at(name) - b.tensors.at(name)).abs().max().item<double>();
}

// fp32: the tensors that differ by more than they may (clear_routing.h).
std::string differing_tensors(const Trained& found, const Reference& expected, double bound) {
  std::string differing;
  for (const auto& [name, tensor] : found.tensors) {
    const double largest = expected.run.tensors.at(name).abs().max().item<double>();
    const double difference = largest_difference(name, found, expected.run);
    const double moved = largest_difference(name, expected.moved, expected.run);
    // The comparison is negated so that a NaN fails it.
    if (!(difference <= allowed_difference(bound, largest, moved) + 1e-12)) {
      differing += absl::StrFormat("%s %.1e; ", name, difference / largest);
    }
  }
  return differing;
}

// bf16: the distance of all tensors of a kind by their norm.
std::string far_apart(const Trained& found, const Trained& expected, const Bounds& bounds) {
  std::map<std::string, std::pair<double, double>> squares;  // of differences, of what is expected
  for (const auto& [name, tensor] : found.tensors) {
    const at::Tensor& other = expected.tensors.at(name);
    auto& [difference, all] = squares[name.substr(0, name.rfind('/') + 1)];
    difference += (tensor - other).square().sum().item<double>();
    all += other.square().sum().item<double>();
  }
  std::string differing;
  for (const auto& [kind, sums] : squares) {
    const double relative = std::sqrt(sums.first / sums.second);
    const bool moment = kind == "exp_avg/" || kind == "exp_avg_sq/";
    if (!(relative <= (moment ? bounds.moments : bounds.parameters))) {
      differing += absl::StrFormat("%s %.2f; ", moment ? kind : "parameters", relative);
    }
  }
  return differing;
}

std::string differences(const TrainingCase& c, const Trained& many, const Reference& one) {
  const bool exact = c.type == at::kFloat;
  const Bounds bounds = bounds_of(c);
  return differing_results(many, one.run, exact, bounds) +
         (exact ? differing_tensors(many, one, bounds.tensor) : far_apart(many, one.run, bounds));
}

// Runs the reference in fp32. Answers why others cannot be held against it: ties; or that rounding
// moves it far over the steps.
std::string run_reference(const TrainingCase& c, uint64_t seed, Reference* one) {
  double gap = 0;
  double ignored = 0;
  one->run = run_in_one_process(c, seed, 0, &gap);
  if (!too_close(gap).empty()) return too_close(gap);
  one->moved = run_in_one_process(c, seed, kRounding, &ignored);
  std::string far = differing_results(one->moved, one->run, /*exact=*/true, bounds_of(c));
  if (!far.empty()) far = "rounding moves " + far;
  for (const auto& [name, tensor] : one->run.tensors) {
    const double largest = tensor.abs().max().item<double>();
    far += too_sensitive(name, largest, largest_difference(name, one->moved, one->run));
  }
  return far;
}

class TrainingLayouts : public ::testing::TestWithParam<std::tuple<On, TrainingCase>> {};

TEST_P(TrainingLayouts, EqualOneProcess) {
  const On where = std::get<0>(GetParam());
  const TrainingCase& c = std::get<1>(GetParam());
  Communicator& world = test_world();
  Reference one;
  uint64_t seed = 21;
  if (c.type == at::kFloat) {
    seed = seed_with_clear_routing(seed,
                                   [&](uint64_t tried) { return run_reference(c, tried, &one); });
  } else {  // choices fall the other way, and the bounds allow for it
    double ignored = 0;
    one.run = run_in_one_process(c, seed, 0, &ignored);
  }
  for (int64_t ep = 1; ep <= world.size(); ep *= 2) {
    const auto mesh = make_mesh(world.split(0, world.rank()), 0, ep);
    const std::string differing = differences(c, run_on_ranks(*mesh, where, c, seed), one);
    EXPECT_TRUE(on_all_ranks(differing.empty())) << differing << "ep " << ep;
  }
}

constexpr auto kRange = PoolPolicy::Kind::kRange;
const std::vector<TrainingCase>& training_cases() {
  static const std::vector<TrainingCase> cases = {
      TrainingCase{8, 1, BalanceScope::kMicroBatch, kRange},
      TrainingCase{3, 1, BalanceScope::kMicroBatch, kRange},  // one rank of four has none
      TrainingCase{5, 3, BalanceScope::kGlobalBatch, kRange},
      TrainingCase{7, 2, BalanceScope::kMicroBatch, PoolPolicy::Kind::kNone},
      TrainingCase{7, 2, BalanceScope::kMicroBatch, kRange, Recompute::kBlock, 3},
      TrainingCase{8, 1, BalanceScope::kMicroBatch, kRange, Recompute::kNone, 1, at::kFloat, true},
      TrainingCase{8, 2, BalanceScope::kMicroBatch, kRange, Recompute::kNone, 1, at::kBFloat16},
      TrainingCase{5, 2, BalanceScope::kMicroBatch, kRange, Recompute::kNone, 1, at::kFloat, false,
                   LossTokens::kLabelled},
      TrainingCase{.rows = 5,
                   .micro_batches = 2,
                   .scope = BalanceScope::kMicroBatch,
                   .pool = kRange,
                   .recompute = Recompute::kMoe,
                   .slices = 2,
                   .budgets = true},
      TrainingCase{.rows = 5,
                   .micro_batches = 2,
                   .scope = BalanceScope::kGlobalBatch,
                   .pool = kRange,
                   .slices = 2,
                   .reordered = true,
                   .gradients = GradientMemory::kParts},
      TrainingCase{.rows = 5,
                   .micro_batches = 1,
                   .scope = BalanceScope::kMicroBatch,
                   .pool = kRange,
                   .freeze = Freeze::kRoutedSharedRouter},
      TrainingCase{.rows = 5,
                   .micro_batches = 1,
                   .scope = BalanceScope::kMicroBatch,
                   .pool = kRange,
                   .type = at::kBFloat16,
                   .freeze = Freeze::kRouted}};
  return cases;
}

// Each on both back ends, but for parameters in bf16, which the host has not.
std::vector<std::tuple<On, TrainingCase>> on_back_ends() {
  std::vector<std::tuple<On, TrainingCase>> all;
  for (const TrainingCase& c : training_cases()) {
    if (c.type == at::kFloat) all.emplace_back(On::kHost, c);
    all.emplace_back(On::kDevice, c);
  }
  return all;
}
INSTANTIATE_TEST_SUITE_P(All, TrainingLayouts, ::testing::ValuesIn(on_back_ends()));

class TrainingStep : public ::testing::TestWithParam<On> {};
INSTANTIATE_TEST_SUITE_P(All, TrainingStep, both_backends(),
                         [](const auto& test) { return name_of(test.param); });

// What is not a number stops the update, on every rank, and is reported.
TEST_P(TrainingStep, KeepsParametersWhereNothingIsFinite) {
  Communicator& world = test_world();
  const TrainingCase c{4, 1, BalanceScope::kMicroBatch, kRange};
  const auto mesh = make_mesh(world.split(0, world.rank()), 0, 1);
  StateOptions how;
  how.backend = make_backend_on(GetParam(), test_device());
  TrainingState state(config_of(c), contract_of(c), kS, mesh->position(), how);
  fill_random(state.model, 21);
  state.model.parameters.dense[0] = std::numeric_limits<float>::infinity();  // of the token 0
  const at::Tensor before = state.model.parameters.experts.clone();
  const Rows rows = rows_of_step(c, 0, 1, world.rank(), world.size());
  const StepResult result =
      training_step(*mesh, rows.micro_batches, rows.share, options_of(c), &state);
  wait_for_parameters(&state);
  EXPECT_TRUE(on_all_ranks(!result.finite() && state.optimizer.step == 0));
  EXPECT_TRUE(on_all_ranks(at::equal(before, state.model.parameters.experts)));
}

}  // namespace
}  // namespace emo

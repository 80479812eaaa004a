// One process and many: every layout of the ranks gives the losses, gradients and pools of one
// process on the same global micro-batches, uneven rows and ranks without rows included.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <numeric>

#include "data/rows/loader.h"
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

constexpr uint64_t kPoolSeed = 77;

struct Outcome {
  StepResult result;
  std::unique_ptr<TrainingState> state;
  FlatBuffers gradients;       // of all ranks
  std::vector<Batch> batches;  // this rank's
};

// Widths that the back end can compute.
ModelConfig config_on(On where) {
  ModelConfig config = small_config();
  if (where == On::kDevice) config.d_expert = 12;
  return config;
}

struct HowToRun {
  explicit HowToRun(On on = On::kHost) : where(on), config(config_on(on)) {}
  On where;
  ModelConfig config;
  Recompute recompute = Recompute::kNone;
  int64_t slices = 1;
  ExpertOrder order = {};
  GradientMemory gradients = GradientMemory::kWhole;
  Precision precision = Precision::kFp32;
  uint64_t weights = 21;  // seed
};

// What an earlier step left in the gradients of routed experts: the first pass writes over it, for
// experts and on ranks that see no token too.
void leave_stale_gradients(TrainingState* state) {
  for (const ParameterInfo& p : state->model.layout.parameters) {
    if (p.buffer != ParameterBuffer::kExperts) continue;
    state->gradients.buffers.experts.slice(0, p.offset, p.offset + p.numel()).fill_(std::nan(""));
  }
}

Outcome run(const Mesh& mesh, const RoutingContract& contract, const std::vector<Batch>& global,
            const HowToRun& how) {
  Outcome outcome;
  StateOptions state_options{how.order, how.gradients};
  state_options.backend = make_backend_on(how.where, test_device());
  outcome.state =
      std::make_unique<TrainingState>(how.config, contract, 48, mesh.position(), state_options);
  fill_random(outcome.state->model, how.weights);
  if (how.gradients == GradientMemory::kWhole) leave_stale_gradients(outcome.state.get());
  std::vector<MicroBatch> micro_batches;
  int64_t share = 0;
  for (const Batch& all : global) {
    const Batch mine = rows_of(all, mesh.world->rank(), mesh.world->size());
    outcome.batches.push_back(mine);
    share += divisor_share(mine);
    MicroBatch& slices = micro_batches.emplace_back();
    for (int64_t s = 0; s < how.slices; ++s)
      slices.push_back(to_tensors(rows_of(mine, s, how.slices)));
  }
  StepOptions options;
  options.pass.seed = kPoolSeed;
  options.pass.recompute = how.recompute;
  options.pass.precision = how.precision;
  outcome.result = training_step(mesh, micro_batches, share, options, outcome.state.get());
  wait_for_parameters(outcome.state.get());
  outcome.gradients = gather_gradients(mesh, outcome.state.get());
  return outcome;
}

// The reference, on the same back end; tests/model/ compares back ends. Chooses how->weights, so
// that its routing is clear.
Outcome run_in_one_process(const RoutingContract& contract, const std::vector<Batch>& global,
                           HowToRun* how) {
  const auto alone = make_mesh(self_communicator(), 1, 1);
  Outcome one;
  PassSettings settings;
  settings.seed = kPoolSeed;
  const Model host(how->config, contract, 48);
  how->weights = seed_with_clear_routing(how->weights, [&](uint64_t seed) {
    how->weights = seed;
    one = run(*alone, contract, global, *how);
    fill_random(host, seed);
    double gap = RoutingGap::kNone;
    for (const Batch& batch : global) {
      const Slice tensors = to_tensors(batch);
      gap = std::min(gap, gap_of_pass(host, tensors, settings).choice());
    }
    return too_close(gap);
  });
  return one;
}

bool close(double found, double expected, double tolerance) {
  return std::abs(found - expected) <= tolerance * std::abs(expected);
}

// The pools of the last micro-batch, this rank's documents, against those of one process.
bool pools_equal(const Outcome& mine, const Outcome& one, const Batch& all, int64_t rank,
                 int64_t world) {
  const SequenceRange rows = share_of({0, all.rows}, rank, world);
  int64_t first = 0;
  for (const int32_t end : all.routing_ends)
    first += end <= rows.begin * all.sequence_length ? 1 : 0;
  const auto count = static_cast<int64_t>(mine.batches.back().routing_ends.size());
  for (size_t layer = 0; layer < mine.state->memory.slices[0].blocks.size(); ++layer) {
    const at::Tensor here = mine.state->memory.slices[0].blocks[layer].moe.routing.pools.cpu();
    const at::Tensor there = one.state->memory.slices[0].blocks[layer].moe.routing.pools.cpu();
    if (here.size(0) != count) return false;
    if (!at::equal(here, there.slice(0, first, first + count))) return false;
  }
  return true;
}

at::Tensor gradient_of(const ParameterInfo& parameter, const Outcome& outcome) {
  return parameter_view(parameter, outcome.gradients);
}

// The first tensor whose gradient is not `near` (found, expected) that of one process; "" where
// none.
template <typename Near>
std::string worst_gradient(const Outcome& many, const Outcome& one, const Near& near) {
  const auto& all = one.state->model.layout.parameters;
  for (const ParameterInfo& p : many.state->model.layout.parameters) {
    const auto q = std::find_if(all.begin(), all.end(),
                                [&](const ParameterInfo& o) { return o.name == p.name; });
    if (!near(gradient_of(p, many), gradient_of(*q, one))) return p.name;
  }
  return "";
}

// By 1e-5 of the largest entry.
bool near_in_fp32(const at::Tensor& found, const at::Tensor& expected) {
  const double largest = expected.abs().max().item<double>();
  return (found - expected).abs().max().item<double>() <= bound_of_weights(1e-5) * largest + 1e-12;
}

// Collective. `many`, a layout with this dp, has the loss and gradients of one process.
void expect_loss_and_gradients(const Outcome& many, const Outcome& one, int64_t dp) {
  EXPECT_TRUE(on_all_ranks(close(many.result.cross_entropy(), one.result.cross_entropy(), 1e-6)));
  const std::string worst = worst_gradient(many, one, near_in_fp32);
  EXPECT_TRUE(on_all_ranks(worst.empty())) << worst << ", dp " << dp;
}

// In direction and length; some tokens choose another expert where scores are nearly tied.
bool near_in_bf16(const at::Tensor& found, const at::Tensor& expected) {
  const double length = expected.norm().item<double>();
  const double product = (found * expected).sum().item<double>();
  return product > 0.97 * length * found.norm().item<double>() &&
         close(found.norm().item<double>(), length, 0.05);
}

struct LayoutCase {
  int64_t rows;  // of each micro-batch
  int64_t micro_batches;
  BalanceScope scope;
  bool filter;
  PoolPolicy::Kind pool;
  Recompute recompute = Recompute::kNone;  // of the many; the one process keeps everything
  int64_t slices = 1;                      //
  LossTokens losses_over = LossTokens::kAll;
  double jitter = 0;
};
class Layouts : public ::testing::TestWithParam<std::tuple<On, LayoutCase>> {};

TEST_P(Layouts, EqualOneProcess) {
  const On where = std::get<0>(GetParam());
  const LayoutCase& c = std::get<1>(GetParam());
  Communicator& world = test_world();
  RoutingContract contract;
  contract.pool.kind = c.pool;
  contract.pool.min = 4;
  contract.pool.max = 20;
  contract.balance_scope = c.scope;
  contract.losses_over = c.losses_over;
  contract.jitter = c.jitter;
  std::vector<Batch> global;
  for (int64_t m = 0; m < c.micro_batches; ++m) {
    global.push_back(random_batch(c.rows, 48, 61, 9, 50 + static_cast<uint64_t>(m), m * c.rows));
    if (c.losses_over == LossTokens::kLabelled) predict_answers_alone(&global.back());
    if (c.filter) {  // the first row loses its labels
      global.back().filtered[0] = 1;
      std::fill_n(global.back().labels.begin(), 48, kIgnoredLabel);
    }
  }
  HowToRun how(where);
  const Outcome one = run_in_one_process(contract, global, &how);
  how.recompute = c.recompute;
  how.slices = c.slices;
  for (int64_t ep = 1; ep <= world.size(); ep *= 2) {
    const auto mesh = make_mesh(world.split(0, world.rank()), 0, ep);
    const Outcome many = run(*mesh, contract, global, how);
    EXPECT_TRUE(on_all_ranks(close(many.result.cross_entropy(), one.result.cross_entropy(), 1e-6)));
    EXPECT_TRUE(on_all_ranks(close(many.result.gradient_norm, one.result.gradient_norm, 1e-5)));
    EXPECT_TRUE(on_all_ranks(many.result.divisor == one.result.divisor));
    bool sums = true;
    for (size_t layer = 0; layer < one.result.sums.layers.size(); ++layer) {
      const RouterSums& a = many.result.sums.layers[layer];
      const RouterSums& b = one.result.sums.layers[layer];
      sums = sums && a.counts == b.counts && a.pool_size == b.pool_size &&
             a.documents == b.documents && close(a.balance, b.balance, 1e-6) &&
             close(a.z_squares, b.z_squares, 1e-6) && close(a.token_entropy, b.token_entropy, 1e-6);
    }
    EXPECT_TRUE(on_all_ranks(sums)) << "ep " << ep;
    if (c.slices == 1) {  // activations hold all of the rank's rows
      EXPECT_TRUE(on_all_ranks(pools_equal(many, one, global.back(), world.rank(), world.size())))
          << "ep " << ep;
    }
    const std::string worst = worst_gradient(many, one, near_in_fp32);
    EXPECT_TRUE(on_all_ranks(worst.empty())) << worst << ", ep " << ep;
  }
}

constexpr auto kRange = PoolPolicy::Kind::kRange;
constexpr auto kLabelled = LossTokens::kLabelled;
INSTANTIATE_TEST_SUITE_P(
    All, Layouts,
    ::testing::Combine(
        both_backends(),
        ::testing::Values(
            LayoutCase{8, 1, BalanceScope::kMicroBatch, false, kRange},
            LayoutCase{3, 1, BalanceScope::kMicroBatch, false,
                       kRange},  // one rank of four has none
            LayoutCase{5, 3, BalanceScope::kMicroBatch, true, kRange},
            LayoutCase{5, 3, BalanceScope::kGlobalBatch, false, kRange},
            LayoutCase{7, 2, BalanceScope::kMicroBatch, false, PoolPolicy::Kind::kNone},
            LayoutCase{1, 2, BalanceScope::kGlobalBatch, true, kRange},
            LayoutCase{5, 2, BalanceScope::kMicroBatch, false, kRange, Recompute::kMoe},
            LayoutCase{5, 2, BalanceScope::kGlobalBatch, false, kRange, Recompute::kBlock},
            LayoutCase{8, 1, BalanceScope::kMicroBatch, false, kRange, Recompute::kBlock, 2},
            LayoutCase{7, 2, BalanceScope::kGlobalBatch, true, kRange, Recompute::kBlock, 3},
            LayoutCase{6, 1, BalanceScope::kMicroBatch, false, kRange, Recompute::kNone, 2},
            LayoutCase{6, 1, BalanceScope::kMicroBatch, false, kRange, Recompute::kMoe, 2},
            LayoutCase{5, 2, BalanceScope::kMicroBatch, false, kRange, Recompute::kNone, 1,
                       kLabelled},
            // No label in the losses at all.
            LayoutCase{1, 2, BalanceScope::kMicroBatch, true, kRange, Recompute::kNone, 1,
                       kLabelled},
            LayoutCase{7, 2, BalanceScope::kGlobalBatch, true, kRange, Recompute::kBlock, 2,
                       kLabelled},
            LayoutCase{8, 1, BalanceScope::kDocument, false, kRange},
            LayoutCase{5, 3, BalanceScope::kDocument, true, kRange, Recompute::kBlock, 2},
            LayoutCase{3, 2, BalanceScope::kDocument, true, kRange, Recompute::kNone, 1, kLabelled},
            LayoutCase{1, 2, BalanceScope::kDocument, false, PoolPolicy::Kind::kNone},
            LayoutCase{7, 2, BalanceScope::kMicroBatch, false, kRange, Recompute::kBlock, 2,
                       LossTokens::kAll, 0.3})));

class OnBackEnds : public ::testing::TestWithParam<On> {};
INSTANTIATE_TEST_SUITE_P(All, OnBackEnds, both_backends(),
                         [](const auto& test) { return name_of(test.param); });

// ZeRO stage 2: gradients that are kept in parts, folded over each other while they are summed, are
// those of one process, whatever the number of passes that add to them.
TEST_P(OnBackEnds, GradientsInPartsEqualOneProcess) {
  Communicator& world = test_world();
  HowToRun how(GetParam());
  how.config.n_layers = 5;  // more than fit in memory at once
  how.config.dense_layers = {3};
  how.config.d_ffn = 16;
  RoutingContract contract;
  contract.pool.min = 4;
  contract.pool.max = 20;
  std::vector<Batch> global;
  for (int64_t m = 0; m < 2; ++m) {
    global.push_back(random_batch(5, 48, 61, 9, 70 + static_cast<uint64_t>(m), m * 5));
  }
  const Outcome one = run_in_one_process(contract, global, &how);
  how.gradients = GradientMemory::kParts;
  for (const int64_t slices : {1, 2}) {
    how.slices = slices;
    how.recompute = slices == 1 ? Recompute::kNone : Recompute::kBlock;
    for (int64_t ep = 1; ep <= world.size(); ep *= 2) {
      const auto mesh = make_mesh(world.split(0, world.rank()), 0, ep);
      const Outcome many = run(*mesh, contract, global, how);
      const bool less =
          many.state->gradients.buffers.dense.numel() < many.state->model.parameters.dense.numel();
      EXPECT_EQ(less, world.size() > 1);
      EXPECT_TRUE(on_all_ranks(close(many.result.gradient_norm, one.result.gradient_norm, 1e-5)));
      const std::string worst = worst_gradient(many, one, near_in_fp32);
      EXPECT_TRUE(on_all_ranks(worst.empty())) << worst << ", ep " << ep << ", slices " << slices;
    }
  }
}

// Selection biases move by the counts of all ranks and micro-batches, the same bits on any layout.
TEST_P(OnBackEnds, SelectionBiasesFollowTheCountsOfAllRanks) {
  Communicator& world = test_world();
  HowToRun how(GetParam());
  how.config.selection_bias = true;
  how.config.dense_layers = {1};
  how.config.d_ffn = 16;
  RoutingContract contract;
  contract.pool.min = 4;
  contract.pool.max = 20;
  contract.bias_rate = 0.125;
  const std::vector<Batch> global = {random_batch(5, 48, 61, 9, 70),
                                     random_batch(5, 48, 61, 9, 71, 5)};
  const Outcome one = run_in_one_process(contract, global, &how);
  const Model before(how.config, contract, 48);
  fill_random(before, how.weights);
  const auto bias = [](const Model& model, int64_t layer) {
    return model.weights.layers[layer].selection_bias.cpu();
  };
  for (int64_t moe_layer = 0; moe_layer < how.config.moe_layers(); ++moe_layer) {
    const int64_t layer = 2 * moe_layer;
    const std::vector<double>& counts = one.result.sums.layers[moe_layer].counts;
    const double mean =
        std::accumulate(counts.begin(), counts.end(), 0.0) / static_cast<double>(counts.size());
    const at::Tensor expected = bias(before, layer).clone();
    for (size_t e = 0; e < counts.size(); ++e) {
      const float step = counts[e] < mean ? 0.125f : counts[e] > mean ? -0.125f : 0.0f;
      expected.mutable_data_ptr<float>()[e] += step;
    }
    EXPECT_TRUE(at::equal(bias(one.state->model, layer), expected)) << layer;
  }
  for (const GradientMemory gradients : {GradientMemory::kWhole, GradientMemory::kParts}) {
    how.gradients = gradients;
    for (int64_t ep = 1; ep <= world.size(); ep *= 2) {
      const auto mesh = make_mesh(world.split(0, world.rank()), 0, ep);
      const Outcome many = run(*mesh, contract, global, how);
      expect_loss_and_gradients(many, one, ep);
      for (const int64_t layer : {0, 2}) {
        EXPECT_TRUE(
            on_all_ranks(at::equal(bias(many.state->model, layer), bias(one.state->model, layer))));
      }
    }
  }
}

// Where experts lie is not what they compute: any order of them gives the one process's results.
TEST_P(OnBackEnds, PlacedExpertsEqualOneProcess) {
  Communicator& world = test_world();
  HowToRun how(GetParam());
  RoutingContract contract;
  contract.pool.min = 4;
  contract.pool.max = 20;
  const std::vector<Batch> global = {random_batch(5, 48, 61, 9, 8)};
  const Outcome one = run_in_one_process(contract, global, &how);
  const int64_t E = how.config.routed_experts();
  how.order.resize(how.config.n_layers);
  for (int64_t layer = 0; layer < how.config.n_layers; ++layer) {
    if (how.config.is_dense(layer)) continue;
    const int64_t step = layer + 2;  // e -> step e + 1 mod E, where that is a permutation
    for (int64_t e = 0; e < E; ++e) {
      how.order[layer].push_back(static_cast<int32_t>((step * e + 1) % E));
    }
    if (!is_permutation(how.order[layer], E)) {
      std::iota(how.order[layer].rbegin(), how.order[layer].rend(), 0);
    }
  }
  for (const int64_t dp : {1, 2}) {
    if (world.size() % dp != 0) continue;
    const auto mesh = make_mesh(world.split(0, world.rank()), dp, world.size() / dp);
    const Outcome many = run(*mesh, contract, global, how);
    expect_loss_and_gradients(many, one, dp);
    EXPECT_TRUE(on_all_ranks(pools_equal(many, one, global[0], world.rank(), world.size())));
  }
}

// The reference's 127 routed experts, spread over all ranks: on 8 of them 16 seven times and 15.
TEST_P(OnBackEnds, UnevenExpertsEqualOneProcess) {
  Communicator& world = test_world();
  HowToRun how(GetParam());
  how.config.num_experts = 128;
  how.config.num_shared_experts = 1;
  how.config.top_k = 8;
  RoutingContract contract;
  contract.pool.min = 8;
  contract.pool.max = 128;
  const std::vector<Batch> global = {random_batch(9, 48, 61, 9, 3)};
  const Outcome one = run_in_one_process(contract, global, &how);
  for (const int64_t dp : {1, 2}) {
    if (world.size() % dp != 0) continue;
    const auto mesh = make_mesh(world.split(0, world.rank()), dp, world.size() / dp);
    const Outcome many = run(*mesh, contract, global, how);
    expect_loss_and_gradients(many, one, dp);
    for (size_t layer = 0; layer < one.result.sums.layers.size(); ++layer) {
      EXPECT_TRUE(on_all_ranks(many.result.sums.layers[layer].counts ==
                               one.result.sums.layers[layer].counts));
    }
  }
}

// In bf16 the results of the experts of one rank are rounded before they return, so layouts differ
// by roundings, 2^-9 of a result each, and where such a rounding decides between experts.
TEST(Bf16Layouts, StayNearOneProcess) {
  Communicator& world = test_world();
  RoutingContract contract;
  contract.pool.min = 4;
  contract.pool.max = 20;
  const std::vector<Batch> global = {random_batch(7, 48, 61, 9, 50),
                                     random_batch(7, 48, 61, 9, 51, 7)};
  const auto alone = make_mesh(self_communicator(), 1, 1);
  HowToRun how;
  how.precision = Precision::kBf16;
  const Outcome one = run(*alone, contract, global, how);
  for (const Recompute recompute : {Recompute::kNone, Recompute::kBlock}) {
    for (int64_t ep = 1; ep <= world.size(); ep *= 2) {
      const auto mesh = make_mesh(world.split(0, world.rank()), 0, ep);
      how.recompute = recompute;
      const Outcome many = run(*mesh, contract, global, how);
      EXPECT_TRUE(
          on_all_ranks(close(many.result.cross_entropy(), one.result.cross_entropy(), 2e-3)));
      EXPECT_TRUE(on_all_ranks(close(many.result.gradient_norm, one.result.gradient_norm, 1e-2)));
      double moved = 0, choices = 0;
      for (size_t layer = 0; layer < one.result.sums.layers.size(); ++layer) {
        const RouterSums& a = many.result.sums.layers[layer];
        const RouterSums& b = one.result.sums.layers[layer];
        for (size_t e = 0; e < a.counts.size(); ++e) {
          moved += std::abs(a.counts[e] - b.counts[e]);
          choices += b.counts[e];
        }
      }
      EXPECT_TRUE(on_all_ranks(moved <= 0.01 * choices)) << moved << " of " << choices;
      const std::string worst = worst_gradient(many, one, near_in_bf16);
      EXPECT_TRUE(on_all_ranks(worst.empty())) << worst << ", ep " << ep;
    }
  }
}

// Counts the all-reduces that pass through it; nothing else is expected of it.
class CountingCommunicator : public Communicator {
 public:
  explicit CountingCommunicator(Communicator* inner) : inner_(inner) {}
  int64_t all_reduces() const { return all_reduces_; }

  int64_t rank() const override { return inner_->rank(); }
  int64_t size() const override { return inner_->size(); }
  void barrier() override { fail(); }
  std::unique_ptr<Pending> all_reduce_async(const at::Tensor& tensor, ReduceOp op) override {
    ++all_reduces_;
    return inner_->all_reduce_async(tensor, op);
  }
  void broadcast(const at::Tensor&, int64_t) override { fail(); }
  std::unique_ptr<Pending> all_gather_async(const at::Tensor&, const at::Tensor&) override {
    return fail();
  }
  std::unique_ptr<Pending> reduce_scatter_async(const at::Tensor&, const at::Tensor&) override {
    return fail();
  }
  std::unique_ptr<Pending> all_to_all_async(const at::Tensor&, const std::vector<int64_t>&,
                                            const at::Tensor&,
                                            const std::vector<int64_t>&) override {
    return fail();
  }
  at::Tensor all_to_all_uncounted(const at::Tensor&, const std::vector<int64_t>&,
                                  std::vector<int64_t>*) override {
    fail();
    return {};
  }
  std::unique_ptr<Communicator> split(int64_t, int64_t) override {
    fail();
    return nullptr;
  }

 private:
  static std::unique_ptr<Pending> fail() {
    ADD_FAILURE() << "a collective over all ranks that is not an all-reduce";
    return nullptr;
  }
  Communicator* inner_;
  int64_t all_reduces_ = 0;
};

// Beside the exchange inside ep, a micro-batch has one collective: the counts of all its layers and
// slices.
TEST_P(OnBackEnds, TakeOneCollectivePerMicroBatch) {
  Communicator& world = test_world();
  CountingCommunicator counting(&world);
  RoutingContract contract;
  contract.pool.min = 4;
  contract.pool.max = 20;
  const auto mesh = make_mesh(world.split(0, world.rank()), 1, world.size());
  StateOptions state_options;
  state_options.backend = make_backend_on(GetParam(), test_device());
  TrainingState state(config_on(GetParam()), contract, 48, mesh->position(), state_options);
  fill_random(state.model, 21);
  const Batch mine = rows_of(random_batch(5, 48, 61, 9, 50), world.rank(), world.size());
  PassOptions options;
  options.ep = mesh->ep.get();
  options.world = &counting;
  options.loss = {240.0, 1e-5};
  options.settings.recompute = Recompute::kBlock;
  for (int64_t slices = 1; slices <= 3; ++slices) {
    MicroBatch batch;
    for (int64_t s = 0; s < slices; ++s) batch.push_back(to_tensors(rows_of(mine, s, slices)));
    forward_backward(state.model, batch, options, &state.balance, &state.memory, state.gradients,
                     state.sums);
    EXPECT_TRUE(on_all_ranks(counting.all_reduces() == slices));  // one more each time
  }
}

// The balance loss of documents needs none at all.
TEST_P(OnBackEnds, TakeNoCollectiveForTheLossOfDocuments) {
  Communicator& world = test_world();
  CountingCommunicator counting(&world);
  RoutingContract contract;
  contract.pool.min = 4;
  contract.pool.max = 20;
  contract.balance_scope = BalanceScope::kDocument;
  const auto mesh = make_mesh(world.split(0, world.rank()), 1, world.size());
  StateOptions state_options;
  state_options.backend = make_backend_on(GetParam(), test_device());
  TrainingState state(config_on(GetParam()), contract, 48, mesh->position(), state_options);
  fill_random(state.model, 21);
  const Batch mine = rows_of(random_batch(5, 48, 61, 9, 50), world.rank(), world.size());
  PassOptions options;
  options.ep = mesh->ep.get();
  options.world = &counting;
  options.loss = {240.0, 1e-5, 30.0};
  forward_backward(state.model, {to_tensors(mine)}, options, &state.balance, &state.memory,
                   state.gradients, state.sums);
  EXPECT_TRUE(on_all_ranks(counting.all_reduces() == 0));
}

// Micro-batches do not change what does not look across tokens of different micro-batches: with the
// balance loss off, one of 6 rows and three of 2 rows give the same gradients.
TEST_P(OnBackEnds, AccumulationOfMicroBatchesIsTheWholeBatch) {
  Communicator& world = test_world();
  RoutingContract contract;
  contract.pool.min = 4;
  contract.pool.max = 20;
  contract.balance_weight = 0;
  const Batch all = random_batch(6, 48, 61, 9, 5);
  std::vector<Batch> parts;
  for (int64_t m = 0; m < 3; ++m) parts.push_back(rows_of(all, m, 3));
  const auto mesh = make_mesh(world.split(0, world.rank()), 0, 1);
  HowToRun how(GetParam());
  run_in_one_process(contract, {all}, &how);
  const Outcome whole = run(*mesh, contract, {all}, how);
  const Outcome split = run(*mesh, contract, parts, how);
  const at::Tensor a = whole.gradients.dense.cpu(), b = split.gradients.dense.cpu();
  EXPECT_TRUE(
      on_all_ranks((a - b).abs().max().item<float>() <= 1e-5 * a.abs().max().item<float>()));
}

}  // namespace
}  // namespace emo

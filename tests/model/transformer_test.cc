#include "model/transformer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "model/pool_sizes.h"
#include "parallel/self_communicator.h"
#include "tests/model/clear_routing.h"
#include "tests/model/random_batch.h"
#include "tests/model/reference_model.h"
#include "tests/model/sample_configs.h"
#include "train/step/batch_tensors.h"

namespace emo {
namespace {

constexpr int64_t kPositions = 64;

struct Case {
  const char* name;
  double mean_length;
  PoolPolicy::Kind pool;
  MaskTime mask;
  ScoresSeen balance_sees, z_sees;
  int64_t shared;
  std::vector<int64_t> dense;
  bool qk_norm = false;
  LossTokens losses_over = LossTokens::kAll;
};

struct Pass {
  LossSums sums;
  std::unique_ptr<Gradients> gradients;
  PassMemory memory;
  const Activations& activations() const { return memory.slices[0]; }
};

Pass run(const Model& model, const Slice& batch, const PassOptions& options,
         const LossOptions& loss) {
  Pass pass;
  pass.gradients = std::make_unique<Gradients>(model);
  pass.sums = make_loss_sums(model.config.moe_layers(), model.config.routed_experts());
  BalanceCounts counts(model.config.moe_layers(), model.config.routed_experts(),
                       model.contract.balance_scope);
  const auto world = self_communicator();
  PassOptions with_ep = options;
  with_ep.ep = with_ep.world = world.get();
  with_ep.loss = loss;
  counts.start_step();
  forward_backward(model, {batch}, with_ep, &counts, &pass.memory, pass.gradients.get(),
                   &pass.sums);
  return pass;
}

// Both ways of computing this pass make the same choices.
void fill_with_clear_routing(const Model& model, uint64_t seed, const Slice& batch,
                             const PassSettings& settings, float moved = 0) {
  const uint64_t clear = seed_with_clear_routing(seed, [&](uint64_t tried) {
    fill_random(model, tried);
    return too_close(gap_of_pass(model, batch, settings).choice());
  });
  if (moved > 0) fill_random(model, clear, moved);
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

class AgainstReference : public ::testing::TestWithParam<Case> {};

// Every loss and every gradient of the hand-written passes equals autograd's, in fp64, of the model
// written plainly.
TEST_P(AgainstReference, LossesAndGradients) {
  const Case& c = GetParam();
  ModelConfig config = small_config();
  config.num_shared_experts = c.shared;
  config.top_k = 3 + c.shared;
  config.dense_layers = c.dense;
  config.d_ffn = 20;
  config.qk_norm = c.qk_norm;
  RoutingContract contract;
  contract.pool.kind = c.pool;
  contract.pool.min = 4;
  contract.pool.max = 13;
  contract.pool.top_p = 0.6;
  contract.mask = c.mask;
  contract.balance_sees = c.balance_sees;
  contract.z_sees = c.z_sees;
  contract.losses_over = c.losses_over;
  contract.balance_weight = 0.7;
  contract.z_weight = 0.05;
  const Model model(config, contract, kPositions);
  Batch rows = random_batch(3, 40, config.vocab_size, c.mean_length, 11);
  if (c.losses_over == LossTokens::kLabelled) predict_answers_alone(&rows);
  const Slice batch = to_tensors(rows);
  PassOptions options;
  options.settings.seed = 42;
  const LossOptions loss{117.0, 1e-2};
  fill_with_clear_routing(model, 3, batch, options.settings, kRounding);
  const Pass moved = run(model, batch, options, loss);
  fill_with_clear_routing(model, 3, batch, options.settings);
  const ReferenceResult expected = reference_forward_backward(model, batch, options, loss);
  const Pass pass = run(model, batch, options, loss);
  EXPECT_NEAR(pass.sums.cross_entropy, expected.cross_entropy, 1e-5 * expected.cross_entropy);
  for (int64_t layer = 0; layer < config.moe_layers(); ++layer) {
    EXPECT_NEAR(pass.sums.layers[layer].balance, expected.balance[layer],
                1e-5 * expected.balance[layer]);
    EXPECT_NEAR(pass.sums.layers[layer].z_squares / loss.divisor, expected.z[layer],
                1e-5 * expected.z[layer]);
  }
  for (const ParameterInfo& p : model.layout.parameters) {
    const auto gradient = [&](const Pass& of) {
      return at::from_blob(parameter_data(p, of.gradients->buffers), p.shape, at::kFloat)
          .to(at::kDouble);
    };
    const at::Tensor& wanted = expected.gradients.at(p.name);
    const double largest = std::max(wanted.abs().max().item<double>(), 5e-3);
    const double difference = largest_difference(gradient(pass), wanted);
    const double by_rounding = largest_difference(gradient(pass), gradient(moved));
    EXPECT_LE(difference, allowed_difference(2e-5, largest, by_rounding))
        << p.name << ", largest " << largest;
    EXPECT_EQ(too_sensitive(p.name, largest, by_rounding), "");
  }
}

constexpr auto kRange = PoolPolicy::Kind::kRange;
constexpr auto kBefore = MaskTime::kBeforeSoftmax, kAfter = MaskTime::kAfterSoftmax;
constexpr auto kLabelled = LossTokens::kLabelled;
constexpr auto kMasked = ScoresSeen::kMasked, kFull = ScoresSeen::kFull;
INSTANTIATE_TEST_SUITE_P(
    All, AgainstReference,
    ::testing::Values(
        Case{"emo", 8, kRange, kBefore, kMasked, kMasked, 1, {}},
        Case{"one_token_documents", 1, kRange, kBefore, kMasked, kMasked, 1, {}},
        Case{"whole_rows", 0, kRange, kBefore, kMasked, kMasked, 1, {}},
        Case{"two_shared", 8, kRange, kBefore, kMasked, kMasked, 2, {}},
        Case{"no_shared", 8, kRange, kBefore, kMasked, kMasked, 0, {}},
        Case{"full_balance", 8, kRange, kBefore, kFull, kMasked, 1, {}},
        Case{"full_z", 8, kRange, kBefore, kMasked, kFull, 1, {}},
        Case{"full_both", 8, kRange, kBefore, kFull, kFull, 1, {}},
        Case{"after_full", 8, kRange, kAfter, kFull, kFull, 1, {}},
        Case{"after_masked", 8, kRange, kAfter, kMasked, kMasked, 1, {}},
        Case{"after_masked_z", 8, kRange, kAfter, kFull, kMasked, 1, {}},
        Case{"top_p", 8, PoolPolicy::Kind::kTopP, kBefore, kMasked, kMasked, 1, {}},
        Case{"standard", 8, PoolPolicy::Kind::kNone, kBefore, kMasked, kMasked, 1, {}},
        Case{"dense_first", 8, kRange, kBefore, kMasked, kMasked, 1, {0}},
        Case{"dense", 8, PoolPolicy::Kind::kNone, kBefore, kMasked, kMasked, 1, {0, 1, 2}},
        Case{"qk_norm", 8, kRange, kBefore, kMasked, kMasked, 0, {1}, true},
        Case{"labelled", 8, kRange, kBefore, kMasked, kMasked, 1, {}, false, kLabelled},
        Case{"labelled_full", 8, kRange, kBefore, kFull, kFull, 1, {}, false, kLabelled},
        Case{"labelled_after", 8, kRange, kAfter, kMasked, kFull, 1, {}, false, kLabelled},
        Case{"labelled_standard",
             8,
             PoolPolicy::Kind::kNone,
             kBefore,
             kMasked,
             kMasked,
             1,
             {1},
             false,
             kLabelled}),
    [](const auto& test) { return test.param.name; });

// Pools of E and of E + 1 are the standard MoE, bit for bit, under both masks.
TEST(Pools, OfAllExpertsAreTheStandardMoeBitForBit) {
  for (const MaskTime mask : {kBefore, kAfter}) {
    ModelConfig config = small_config();
    RoutingContract standard;
    standard.mask = mask;
    standard.pool.kind = PoolPolicy::Kind::kNone;
    const Slice batch = to_tensors(random_batch(4, 48, config.vocab_size, 7, 5));
    const LossOptions loss{188.0, 1e-5};
    const Model reference(config, standard, kPositions);
    fill_random(reference, 8);
    PassOptions options;
    const Pass expected = run(reference, batch, options, loss);
    for (const int64_t size : {config.routed_experts(), config.routed_experts() + 1}) {
      RoutingContract contract = standard;
      contract.pool.kind = kRange;
      contract.pool.min = contract.pool.max = size;
      const Model model(config, contract, kPositions);
      fill_random(model, 8);
      const Pass pass = run(model, batch, options, loss);
      EXPECT_TRUE(at::equal(pass.gradients->buffers.dense, expected.gradients->buffers.dense));
      EXPECT_TRUE(at::equal(pass.gradients->buffers.experts, expected.gradients->buffers.experts));
      EXPECT_TRUE(at::equal(pass.activations().normalised, expected.activations().normalised));
      EXPECT_EQ(pass.sums.cross_entropy, expected.sums.cross_entropy);
      for (int64_t layer = 0; layer < config.n_layers; ++layer) {
        EXPECT_EQ(pass.sums.layers[layer].counts, expected.sums.layers[layer].counts);
        EXPECT_EQ(pass.sums.layers[layer].balance, expected.sums.layers[layer].balance);
        EXPECT_EQ(pass.sums.layers[layer].z_squares, expected.sums.layers[layer].z_squares);
      }
    }
  }
}

// One copy a rank and one copy an expert give the same numbers.
TEST(Exchange, NaivePathAgrees) {
  const ModelConfig config = small_config();
  RoutingContract contract;
  contract.pool.min = 4;
  contract.pool.max = 13;
  const Model model(config, contract, kPositions);
  const Slice batch = to_tensors(random_batch(2, 48, config.vocab_size, 9, 6));
  PassOptions options;
  fill_with_clear_routing(model, 4, batch, options.settings);
  const Pass fast = run(model, batch, options, {94.0, 1e-5});
  options.settings.exchange = ExchangeMode::kOncePerExpert;
  const Pass naive = run(model, batch, options, {94.0, 1e-5});
  EXPECT_NEAR(fast.sums.cross_entropy, naive.sums.cross_entropy, 1e-6 * naive.sums.cross_entropy);
  const auto expect_equal = [](const at::Tensor& found, const at::Tensor& expected) {
    const double largest = expected.abs().max().item<double>();
    EXPECT_LE((found - expected).abs().max().item<double>(), 1e-5 * largest);
  };
  expect_equal(fast.gradients->buffers.experts, naive.gradients->buffers.experts);
  expect_equal(fast.gradients->buffers.dense, naive.gradients->buffers.dense);
}

// What is computed again is the same to the bit, and no statistic is counted twice.
TEST(Recompute, ChangesNothing) {
  ModelConfig config = small_config();
  config.dense_layers = {1};
  config.d_ffn = 20;
  config.num_shared_experts = 2;
  RoutingContract contract;
  contract.pool.min = 4;
  contract.pool.max = 12;
  const Model model(config, contract, kPositions);
  fill_random(model, 4);
  const Slice batch = to_tensors(random_batch(2, 48, config.vocab_size, 9, 6));
  PassOptions options;
  const Pass kept = run(model, batch, options, {94.0, 1e-5});
  for (const Recompute recompute : {Recompute::kMoe, Recompute::kBlock}) {
    options.settings.recompute = recompute;
    const Pass again = run(model, batch, options, {94.0, 1e-5});
    EXPECT_TRUE(at::equal(kept.gradients->buffers.dense, again.gradients->buffers.dense));
    EXPECT_TRUE(at::equal(kept.gradients->buffers.experts, again.gradients->buffers.experts));
    EXPECT_EQ(kept.sums.cross_entropy, again.sums.cross_entropy);
    for (size_t layer = 0; layer < kept.sums.layers.size(); ++layer) {
      EXPECT_EQ(kept.sums.layers[layer].counts, again.sums.layers[layer].counts);
      EXPECT_EQ(kept.sums.layers[layer].balance, again.sums.layers[layer].balance);
      EXPECT_EQ(kept.sums.layers[layer].documents, again.sums.layers[layer].documents);
      EXPECT_EQ(kept.sums.layers[layer].tokens, again.sums.layers[layer].tokens);
    }
  }
}

double cosine(const at::Tensor& a, const at::Tensor& b) {
  return (a * b).sum().item<double>() / (a.norm().item<double>() * b.norm().item<double>() + 1e-30);
}

// bf16 against fp32, both hand-written passes. Every token goes through all experts: no choice that
// a rounding could turn.
TEST(Precision, Bf16StaysNearFp32) {
  ModelConfig config = small_config();
  config.dense_layers = {1};
  config.d_ffn = 20;
  config.top_k = config.num_experts;
  RoutingContract contract;
  contract.pool.kind = PoolPolicy::Kind::kNone;
  const Model model(config, contract, kPositions);
  fill_random(model, 4);
  const Slice batch = to_tensors(random_batch(4, 48, config.vocab_size, 9, 6));
  PassOptions options;
  const LossOptions loss{188.0, 1e-5};
  const Pass fp32 = run(model, batch, options, loss);
  options.settings.precision = Precision::kBf16;
  const Pass bf16 = run(model, batch, options, loss);
  EXPECT_NEAR(bf16.sums.cross_entropy, fp32.sums.cross_entropy, 1e-2 * fp32.sums.cross_entropy);
  EXPECT_NE(bf16.sums.cross_entropy, fp32.sums.cross_entropy) << "bf16 took the fp32 path";
  for (size_t layer = 0; layer < fp32.sums.layers.size(); ++layer) {
    EXPECT_NEAR(bf16.sums.layers[layer].balance, fp32.sums.layers[layer].balance,
                1e-2 * fp32.sums.layers[layer].balance);
    EXPECT_NEAR(bf16.sums.layers[layer].z_squares, fp32.sums.layers[layer].z_squares,
                1e-2 * fp32.sums.layers[layer].z_squares);
  }
  double largest = 0;
  for (const ParameterInfo& p : model.layout.parameters) {
    const auto gradient = [&](const Pass& pass) {
      return at::from_blob(parameter_data(p, pass.gradients->buffers), p.shape, at::kFloat);
    };
    largest = std::max(largest, gradient(fp32).norm().item<double>());
  }
  for (const ParameterInfo& p : model.layout.parameters) {
    const auto gradient = [&](const Pass& pass) {
      return at::from_blob(parameter_data(p, pass.gradients->buffers), p.shape, at::kFloat);
    };
    if (gradient(fp32).norm().item<double>() < 1e-2 * largest) continue;
    EXPECT_GT(cosine(gradient(bf16), gradient(fp32)), 0.99) << p.name;
    EXPECT_NEAR(gradient(bf16).norm().item<double>(), gradient(fp32).norm().item<double>(),
                0.05 * gradient(fp32).norm().item<double>())
        << p.name;
  }
  EXPECT_EQ(bf16.activations().blocks[0].qkv.scalar_type(), at::kBFloat16);
  EXPECT_EQ(bf16.activations().blocks[0].h.scalar_type(), at::kFloat);
}

// With a choice of experts: computed again the same bits; one copy an expert adds bf16 results in
// another order, and a few tokens choose another expert, as against fp32.
TEST(Precision, Bf16WithEveryWayThroughTheExperts) {
  const ModelConfig config = small_config();
  RoutingContract contract;
  contract.pool.min = 4;
  contract.pool.max = 13;
  const Model model(config, contract, kPositions);
  fill_random(model, 4);
  const Slice batch = to_tensors(random_batch(4, 48, config.vocab_size, 9, 6));
  PassOptions options;
  const LossOptions loss{188.0, 1e-5};
  const Pass fp32 = run(model, batch, options, loss);
  options.settings.precision = Precision::kBf16;
  const Pass bf16 = run(model, batch, options, loss);
  for (const Recompute recompute : {Recompute::kMoe, Recompute::kBlock}) {
    options.settings.recompute = recompute;
    const Pass again = run(model, batch, options, loss);
    EXPECT_TRUE(at::equal(bf16.gradients->buffers.dense, again.gradients->buffers.dense));
    EXPECT_TRUE(at::equal(bf16.gradients->buffers.experts, again.gradients->buffers.experts));
  }
  options.settings.recompute = Recompute::kNone;
  options.settings.exchange = ExchangeMode::kOncePerExpert;
  const Pass naive = run(model, batch, options, loss);
  for (const Pass* other : {&fp32, &naive}) {
    EXPECT_NEAR(other->sums.cross_entropy, bf16.sums.cross_entropy, 1e-2 * fp32.sums.cross_entropy);
    const FlatBuffers& found = other->gradients->buffers;
    EXPECT_GT(cosine(found.dense, bf16.gradients->buffers.dense), 0.99);
    EXPECT_GT(cosine(found.experts, bf16.gradients->buffers.experts), 0.98);
  }
}

// Memory that was used for a larger batch, and with recomputation, gives the same bits.
TEST(Activations, CarryNothingFromPassToPass) {
  const ModelConfig config = small_config();
  RoutingContract contract;
  contract.pool.min = 4;
  contract.pool.max = 12;
  const Model model(config, contract, kPositions);
  fill_random(model, 4);
  const auto world = self_communicator();
  PassOptions options;
  options.ep = world.get();
  Activations used;
  PassBuffers used_buffers;
  for (const int64_t rows : {3, 1, 4, 2}) {
    options.settings.recompute = static_cast<Recompute>(rows % 3);
    options.settings.precision = static_cast<Precision>(rows % 2);
    const Slice batch = to_tensors(random_batch(rows, 48, config.vocab_size, 9, rows));
    Activations fresh;
    PassBuffers fresh_buffers;
    forward(model, batch, options, &used, &used_buffers);
    forward(model, batch, options, &fresh, &fresh_buffers);
    EXPECT_TRUE(at::equal(used.normalised, fresh.normalised)) << rows;
  }
}

// A rank without rows has no losses and no gradients, and does not fail.
TEST(Transformer, TakesNoRows) {
  const ModelConfig config = small_config();
  const Model model(config, RoutingContract(), kPositions);
  fill_random(model, 4);
  PassOptions options;
  options.settings.pool.emplace().min = 4;
  const Pass pass =
      run(model, to_tensors(random_batch(0, 48, config.vocab_size, 9, 6)), options, {10.0, 1e-5});
  EXPECT_EQ(pass.sums.cross_entropy, 0);
  EXPECT_EQ(pass.gradients->buffers.dense.abs().max().item<float>(), 0);
}

TEST(Parameters, CountsOfTheReleasedModels) {
  ModelConfig config = released_config();
  EXPECT_EQ(count_parameters(config).total, 13568641024);
  config.num_experts = 32;
  EXPECT_EQ(count_parameters(config).total, 3901818880);
  ModelConfig dense = config;
  for (int64_t layer = 0; layer < 16; ++layer) dense.dense_layers.push_back(layer);
  dense.d_ffn = 8192;
  EXPECT_EQ(count_parameters(dense).total, 1484851200);
}

TEST(Parameters, InitialValuesAreTheSameOnEveryLayoutAndCutAtThreeDeviations) {
  const ModelConfig config = small_config();
  Model whole(config, RoutingContract(), kPositions);
  initialise(config, whole.layout, &whole.parameters);
  for (int64_t rank = 0; rank < 4; ++rank) {
    Model part(config, RoutingContract(), kPositions, {4, rank});
    initialise(config, part.layout, &part.parameters);
    for (const ParameterInfo& p : part.layout.parameters) {
      for (const ParameterInfo& q : whole.layout.parameters) {
        if (p.name != q.name) continue;
        EXPECT_EQ(0, std::memcmp(parameter_data(p, part.parameters),
                                 parameter_data(q, whole.parameters), p.numel() * sizeof(float)));
      }
    }
  }
  const at::Tensor e = whole.parameters.experts;
  EXPECT_LE(e.abs().max().item<float>(), 0.06f);
  EXPECT_NEAR(e.std().item<float>(), 0.02f * 0.9866f, 4e-4f);  // of a normal cut at 3
  EXPECT_NEAR(e.mean().item<float>(), 0, 1e-3f);
}

}  // namespace
}  // namespace emo

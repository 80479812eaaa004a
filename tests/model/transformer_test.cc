// Both back ends, one list of tests: every loss and gradient against the model written plainly, and
// what changes no bit against itself.
#include "model/transformer.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <tuple>

#include "data/rows/loader.h"
#include "eval/verify/golden_folder.h"
#include "parallel/self_communicator.h"
#include "tests/model/backends.h"
#include "tests/model/clear_routing.h"
#include "tests/model/random_batch.h"
#include "tests/model/reference_model.h"
#include "tests/model/sample_configs.h"
#include "tests/model/transformer_cases.h"
#include "train/step/batch_tensors.h"

namespace emo {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr int64_t kPositions = 72;  // of a row: more than one piece of a document

struct Pass {
  LossSums sums;
  std::unique_ptr<Gradients> gradients;
  PassMemory memory;
  const Activations& activations() const { return memory.slices[0]; }
};

// Gradients of routed experts begin as what a pass must not see.
Pass run(const Model& model, const MicroBatch& slices, const PassOptions& options,
         const LossOptions& loss) {
  Pass pass;
  pass.gradients = std::make_unique<Gradients>(model);
  for (const ParameterInfo& p : model.layout.parameters) {
    if (p.buffer != ParameterBuffer::kExperts) continue;
    pass.gradients->buffers.experts.slice(0, p.offset, p.offset + p.numel()).fill_(std::nan(""));
  }
  StepSums sums(model.config.moe_layers(), model.config.routed_experts(), model.device());
  BalanceCounts counts(model.config.moe_layers(), model.config.routed_experts(),
                       model.contract.balance_scope, model.device());
  const auto world = self_communicator();
  PassOptions with_ep = options;
  with_ep.ep = with_ep.world = world.get();
  with_ep.loss = loss;
  std::set<size_t> written;  // by the first slice
  with_ep.before_gradients = [&](size_t bucket) { return !written.insert(bucket).second; };
  counts.start_step();
  forward_backward(model, slices, with_ep, &counts, &pass.memory, *pass.gradients, sums);
  pass.sums = sums.read(sums.all());
  return pass;
}

MicroBatch cut(const Batch& rows, int64_t slices) {
  MicroBatch micro_batch;
  for (int64_t s = 0; s < slices; ++s) micro_batch.push_back(to_tensors(rows_of(rows, s, slices)));
  return micro_batch;
}

Model model_on(On where, const ModelConfig& config, const RoutingContract& contract) {
  return {config, contract, kPositions, {}, {}, make_backend_on(where)};
}

// Weights with which both ways of computing this pass make the same choices; the seed. `host` is
// filled with them.
uint64_t seed_of_clear_routing(const Model& host, uint64_t seed, const Slice& batch,
                               const PassSettings& settings) {
  return seed_with_clear_routing(seed, [&](uint64_t tried) {
    fill_random(host, tried);
    return too_close(gap_of_pass(host, batch, settings).choice());
  });
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

bool same_gradients(const Pass& a, const Pass& b) {
  return at::equal(a.gradients->buffers.dense, b.gradients->buffers.dense) &&
         at::equal(a.gradients->buffers.experts, b.gradients->buffers.experts);
}

class AgainstReference : public ::testing::TestWithParam<std::tuple<On, TransformerCase>> {};

// Every loss and every gradient of the hand-written passes equals autograd's, in fp64, of the model
// written plainly.
TEST_P(AgainstReference, LossesAndGradients) {
  const auto& [where, c] = GetParam();
  const ModelConfig config = config_of(c, where);
  RoutingContract contract = contract_of(c);
  contract.balance_weight = 0.7;
  contract.z_weight = 0.05;
  const Model model = model_on(where, config, contract);
  const Model host(config, contract, kPositions);
  Batch rows = random_batch(4, kPositions, config.vocab_size, c.mean_length, 11);
  if (c.losses_over == LossTokens::kLabelled) predict_answers_alone(&rows);
  const Slice batch = to_tensors(rows);
  const MicroBatch slices = cut(rows, c.slices);
  PassOptions options;
  options.settings.seed = 42;
  options.settings.recompute = c.recompute;
  const LossOptions loss{117.0, 1e-2, 7.0};
  const uint64_t seed = seed_of_clear_routing(host, 3, batch, options.settings);
  const ReferenceResult expected = reference_forward_backward(host, batch, options, loss);
  fill_random(model, seed, kRounding);
  const Pass moved = run(model, slices, options, loss);
  fill_random(model, seed);
  const Pass pass = run(model, slices, options, loss);
  EXPECT_NEAR(pass.sums.cross_entropy, expected.cross_entropy, 1e-5 * expected.cross_entropy);
  for (int64_t layer = 0; layer < config.moe_layers(); ++layer) {
    EXPECT_NEAR(pass.sums.layers[layer].balance, expected.balance[layer],
                1e-5 * expected.balance[layer]);
    EXPECT_NEAR(pass.sums.layers[layer].z_squares / loss.divisor, expected.z[layer],
                1e-5 * expected.z[layer]);
  }
  // A GPU adds in other orders: 3e-5 was seen where the gradients of few tokens cancel.
  const double bound = model.device().is_cuda() ? 5e-5 : 2e-5;
  for (const ParameterInfo& p : model.layout.parameters) {
    const auto gradient = [&](const Pass& of) {
      return parameter_view(p, of.gradients->buffers).to(at::kDouble);
    };
    const at::Tensor& wanted = expected.gradients.at(p.name);
    const double largest = std::max(wanted.abs().max().item<double>(), 5e-3);
    const double difference = largest_difference(gradient(pass), wanted);
    const double by_rounding = largest_difference(gradient(pass), gradient(moved));
    EXPECT_LE(difference, allowed_difference(bound, largest, by_rounding))
        << p.name << ", largest " << largest;
    EXPECT_EQ(too_sensitive(p.name, largest, by_rounding), "");
  }
}

INSTANTIATE_TEST_SUITE_P(All, AgainstReference,
                         ::testing::Combine(both_backends(),
                                            ::testing::ValuesIn(transformer_cases())),
                         [](const auto& test) {
                           return name_of(std::get<0>(test.param)) + "_" +
                                  std::get<1>(test.param).name;
                         });

class OnBackEnds : public ::testing::TestWithParam<On> {
 protected:
  static ModelConfig config(const TransformerCase& c = {}) { return config_of(c, GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(All, OnBackEnds, both_backends(),
                         [](const auto& test) { return name_of(test.param); });

RoutingContract contract_with_pools(int64_t min, int64_t max) {
  RoutingContract contract;
  contract.pool.min = min;
  contract.pool.max = max;
  return contract;
}

// Pools of E and of E + 1 are the standard MoE, bit for bit, under both masks.
TEST_P(OnBackEnds, PoolsOfAllExpertsAreTheStandardMoeBitForBit) {
  for (const MaskTime mask : {kBefore, kAfter}) {
    RoutingContract standard;
    standard.mask = mask;
    standard.pool.kind = kNone;
    const MicroBatch batch = cut(random_batch(4, 48, config().vocab_size, 7, 5), 1);
    const LossOptions loss{188.0, 1e-5};
    const Model reference = model_on(GetParam(), config(), standard);
    fill_random(reference, 8);
    const Pass expected = run(reference, batch, {}, loss);
    for (const int64_t size : {config().routed_experts(), config().routed_experts() + 1}) {
      RoutingContract contract = contract_with_pools(size, size);
      contract.mask = mask;
      const Model model = model_on(GetParam(), config(), contract);
      fill_random(model, 8);
      const Pass pass = run(model, batch, {}, loss);
      EXPECT_TRUE(same_gradients(pass, expected));
      EXPECT_EQ(pass.sums.cross_entropy, expected.sums.cross_entropy);
      for (int64_t layer = 0; layer < config().n_layers; ++layer) {
        EXPECT_EQ(pass.sums.layers[layer].counts, expected.sums.layers[layer].counts);
        EXPECT_EQ(pass.sums.layers[layer].balance, expected.sums.layers[layer].balance);
        EXPECT_EQ(pass.sums.layers[layer].z_squares, expected.sums.layers[layer].z_squares);
      }
    }
  }
}

// What is computed again is the same to the bit, and no statistic is counted twice.
TEST_P(OnBackEnds, RecomputingChangesNothing) {
  const TransformerCase c{.name = "", .shared = 2, .dense = {1}, .qk_norm = true};
  RoutingContract contract = contract_with_pools(4, 12);
  contract.jitter = 0.2;
  const Model model = model_on(GetParam(), config(c), contract);
  fill_random(model, 4);
  const MicroBatch batch = cut(random_batch(2, 48, model.config.vocab_size, 9, 6), 1);
  PassOptions options;
  const Pass kept = run(model, batch, options, {94.0, 1e-5});
  for (const Recompute recompute : {Recompute::kMoe, Recompute::kBlock}) {
    options.settings.recompute = recompute;
    const Pass again = run(model, batch, options, {94.0, 1e-5});
    EXPECT_TRUE(same_gradients(kept, again));
    EXPECT_EQ(kept.sums.cross_entropy, again.sums.cross_entropy);
    for (size_t layer = 0; layer < kept.sums.layers.size(); ++layer) {
      EXPECT_EQ(kept.sums.layers[layer].counts, again.sums.layers[layer].counts);
      EXPECT_EQ(kept.sums.layers[layer].balance, again.sums.layers[layer].balance);
      EXPECT_EQ(kept.sums.layers[layer].documents, again.sums.layers[layer].documents);
      EXPECT_EQ(kept.sums.layers[layer].tokens, again.sums.layers[layer].tokens);
    }
  }
}

// Evaluation is without noise, and training with other noise for each seed.
TEST_P(OnBackEnds, JitterIsOfTrainingAndOfTheSeed) {
  RoutingContract contract = contract_with_pools(12, 12);
  const Model plain = model_on(GetParam(), config(), contract);
  contract.jitter = 0.2;
  const Model noisy = model_on(GetParam(), config(), contract);
  fill_random(plain, 4);
  fill_random(noisy, 4);
  const Slice batch = to_tensors(random_batch(2, 48, plain.config.vocab_size, 9, 6));
  const auto world = self_communicator();
  const auto output = [&](const Model& model, bool trains, uint64_t seed) {
    PassOptions options;
    options.ep = world.get();
    if (trains) options.world = world.get();
    options.settings.seed = seed;
    Activations activations;
    PassBuffers buffers;
    forward(model, batch, options, &activations, &buffers);
    return activations.last;
  };
  const at::Tensor expected = output(plain, false, 1);
  EXPECT_TRUE(at::equal(output(plain, true, 1), expected));
  EXPECT_TRUE(at::equal(output(noisy, false, 1), expected));
  const at::Tensor jittered = output(noisy, true, 1);
  EXPECT_FALSE(at::equal(jittered, expected));
  EXPECT_TRUE(at::equal(output(noisy, true, 1), jittered));
  EXPECT_FALSE(at::equal(output(noisy, true, 2), jittered));
}

// A rank without rows has no losses and no gradients, and does not fail.
TEST_P(OnBackEnds, TakeNoRows) {
  const Model model = model_on(GetParam(), config(), {});
  fill_random(model, 4);
  PassOptions options;
  options.settings.pool.emplace().min = 4;
  const Pass pass =
      run(model, cut(random_batch(0, 48, model.config.vocab_size, 9, 6), 1), options, {10.0, 1e-5});
  EXPECT_EQ(pass.sums.cross_entropy, 0);
  EXPECT_EQ(pass.gradients->buffers.dense.abs().max().item<float>(), 0);
  EXPECT_EQ(pass.gradients->buffers.experts.abs().max().item<float>(), 0);
}

// Memory that was used for a larger batch, and with recomputation, gives the same bits.
TEST_P(OnBackEnds, ActivationsCarryNothingFromPassToPass) {
  const Model model = model_on(GetParam(), config(), contract_with_pools(4, 12));
  fill_random(model, 4);
  const auto world = self_communicator();
  PassOptions options;
  options.ep = world.get();
  Activations used;
  PassBuffers used_buffers;
  for (const int64_t rows : {3, 1, 4, 2}) {
    options.settings.recompute = static_cast<Recompute>(rows % 3);
    options.settings.precision = static_cast<Precision>(rows % 2);
    const Slice batch = to_tensors(random_batch(rows, 48, model.config.vocab_size, 9, rows));
    Activations fresh;
    PassBuffers fresh_buffers;
    forward(model, batch, options, &used, &used_buffers);
    forward(model, batch, options, &fresh, &fresh_buffers);
    EXPECT_TRUE(at::equal(used.last, fresh.last)) << rows;
  }
}

// A device keeps nothing of a pass but what its layers chose.
TEST(DeviceMemory, IsGivenBackAfterAPass) {
  const TransformerCase c{.name = "", .dense = {1}, .qk_norm = true};
  RoutingContract contract = contract_with_pools(4, 12);
  contract.jitter = 0.1;
  const Model model = model_on(On::kDevice, config_of(c, On::kDevice), contract);
  fill_random(model, 4);
  for (const Recompute recompute : {Recompute::kNone, Recompute::kMoe, Recompute::kBlock}) {
    PassOptions options;
    options.settings.recompute = recompute;
    const Pass pass = run(model, cut(random_batch(2, 48, 61, 9, 6), 2), options, {94.0, 1e-5});
    const PassBuffers& b = pass.memory.buffers;
    std::vector<at::Tensor> left = {b.ignored,
                                    b.d,
                                    b.d_normalised,
                                    b.normalised.y,
                                    b.block.d_hidden,
                                    b.block.d_stored,
                                    b.block.d_attended,
                                    b.block.d_qkv,
                                    b.block.moe.d_arrived,
                                    b.block.moe.jittered,
                                    b.block.moe.d_jittered,
                                    b.block.moe.pairs.rows,
                                    b.block.moe.pairs.scalars,
                                    b.block.moe.slots,
                                    b.block.moe.d_logits,
                                    b.block.moe.routed_hidden};
    const auto add_block = [&](const BlockActivations& block) {
      left.insert(left.end(), {block.x, block.attention_input.y, block.qk_norm.raw, block.qkv,
                               block.attended.out, block.attended.logsumexp, block.h,
                               block.feed_forward_input.y, block.moe.router_input.logits,
                               block.moe.jitter.sequence_index, block.moe.jitter.span_of,
                               block.moe.arrived, block.moe.routed_hidden});
      EXPECT_TRUE(block.moe.shared_hidden.empty() && block.dense_hidden.empty());
      EXPECT_EQ(block.moe.plan, nullptr);
    };
    add_block(b.recomputed);
    for (const Activations& slice : pass.memory.slices) {
      left.insert(left.end(), {slice.last, slice.slice.tokens, slice.slice.routing.span_of});
      for (const BlockActivations& block : slice.blocks) add_block(block);
      EXPECT_TRUE(slice.blocks[0].moe.routing.experts.defined());
    }
    for (size_t i = 0; i < left.size(); ++i) EXPECT_FALSE(left[i].defined()) << i;
  }
}

// As many subsets as layers, or none: one for a layer that is not there would be read behind the
// last.
TEST_P(OnBackEnds, RefuseSubsetsThatAreNotOneForEachLayer) {
  const Model model = model_on(GetParam(), config(), {});
  const auto world = self_communicator();
  PassOptions options;
  options.ep = world.get();
  options.settings.subsets.resize(2);
  Activations activations;
  PassBuffers buffers;
  const Slice batch = to_tensors(random_batch(1, 48, 61, 9, 5));
  EXPECT_THAT([&] { forward(model, batch, options, &activations, &buffers); },
              ThrowsMessage<c10::Error>(HasSubstr("2 expert subsets for 3 layers")));
}

// What stands outside the vocabulary or the table of positions is an error, not a read behind it.
TEST_P(OnBackEnds, RefuseWhatTheyCannotLookUp) {
  const Model model = model_on(GetParam(), config(), {});
  Slice batch = to_tensors(random_batch(1, kPositions, 61, 9, 5));
  const auto place = [&] { place_slice(model, batch, {}); };
  EXPECT_NO_THROW(place());
  batch.tokens[0][3] = 61;
  EXPECT_THAT(place, ThrowsMessage<c10::Error>(HasSubstr("a token is 61, must be below 61")));
  batch.tokens[0][3] = -1;
  EXPECT_THAT(place, ThrowsMessage<c10::Error>(HasSubstr("a token is -1, must not be negative")));
  batch.tokens[0][3] = 0;
  batch.labels[0][5] = 61;
  EXPECT_THAT(place, ThrowsMessage<c10::Error>(HasSubstr("a label is 61")));
  batch.labels[0][5] = -100;
  batch.positions[0][7] = kPositions;
  EXPECT_THAT(place, ThrowsMessage<c10::Error>(HasSubstr("a position is 72, must be below 72")));
}

// One copy a rank and one copy an expert give the same numbers.
TEST(Exchange, NaivePathAgrees) {
  const ModelConfig config = small_config();
  const Model model(config, contract_with_pools(4, 13), kPositions);
  const Batch rows = random_batch(2, 48, config.vocab_size, 9, 6);
  PassOptions options;
  seed_of_clear_routing(model, 4, to_tensors(rows), options.settings);
  const Pass fast = run(model, cut(rows, 1), options, {94.0, 1e-5});
  options.settings.exchange = ExchangeMode::kOncePerExpert;
  const Pass naive = run(model, cut(rows, 1), options, {94.0, 1e-5});
  EXPECT_NEAR(fast.sums.cross_entropy, naive.sums.cross_entropy, 1e-6 * naive.sums.cross_entropy);
  for (const ParameterInfo& p : model.layout.parameters) {
    const at::Tensor expected = parameter_view(p, naive.gradients->buffers);
    EXPECT_LE(largest_difference(parameter_view(p, fast.gradients->buffers), expected),
              1e-5 * std::max(expected.abs().max().item<double>(), 5e-3))
        << p.name;
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
  contract.pool.kind = kNone;
  const Model model(config, contract, kPositions);
  fill_random(model, 4);
  const MicroBatch batch = cut(random_batch(4, 48, config.vocab_size, 9, 6), 1);
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
      return parameter_view(p, pass.gradients->buffers);
    };
    largest = std::max(largest, gradient(fp32).norm().item<double>());
  }
  for (const ParameterInfo& p : model.layout.parameters) {
    const auto gradient = [&](const Pass& pass) {
      return parameter_view(p, pass.gradients->buffers);
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
  const Model model(config, contract_with_pools(4, 13), kPositions);
  fill_random(model, 4);
  const MicroBatch batch = cut(random_batch(4, 48, config.vocab_size, 9, 6), 1);
  PassOptions options;
  const LossOptions loss{188.0, 1e-5};
  const Pass fp32 = run(model, batch, options, loss);
  options.settings.precision = Precision::kBf16;
  const Pass bf16 = run(model, batch, options, loss);
  for (const Recompute recompute : {Recompute::kMoe, Recompute::kBlock}) {
    options.settings.recompute = recompute;
    const Pass again = run(model, batch, options, loss);
    EXPECT_TRUE(same_gradients(bf16, again));
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
  ModelConfig config = small_config();
  config.selection_bias = true;
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
  for (const ParameterInfo& p : whole.layout.parameters) {
    if (!is_selection_bias(p.name)) continue;
    EXPECT_EQ(p.shape, std::vector<int64_t>{config.num_experts});
    EXPECT_EQ(parameter_view(p, whole.parameters).abs().max().item<float>(), 0);
  }
  EXPECT_EQ(whole.weights.layers[2].selection_bias.numel(), config.routed_experts());
  const at::Tensor e = whole.parameters.experts;
  EXPECT_LE(e.abs().max().item<float>(), 0.06f);
  EXPECT_NEAR(e.std().item<float>(), 0.02f * 0.9866f, 4e-4f);  // of a normal cut at 3
  EXPECT_NEAR(e.mean().item<float>(), 0, 1e-3f);
}

}  // namespace
}  // namespace emo

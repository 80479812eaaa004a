// The device's back end against the host's: the same choices, counts and sums; in bf16 near ones.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "eval/verify/golden_folder.h"
#include "parallel/self_communicator.h"
#include "tests/model/backends.h"
#include "tests/model/clear_routing.h"
#include "tests/model/random_batch.h"
#include "tests/model/transformer_cases.h"
#include "train/step/batch_tensors.h"

namespace emo {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr int64_t kS = 72;  // of a row: more than one piece of a document
constexpr uint64_t kSeed = 77;

// A step's worth of one micro-batch on one back end.
struct OneStep {
  Model model;
  Gradients gradients;
  PassMemory memory;
  LossSums sums;

  OneStep(const TransformerCase& c, On where, at::ScalarType type)
      : model(config_of(c, On::kDevice), contract_of(c), kS, {}, {},
              make_backend_on(where, device_under_test(), type)),
        gradients(model) {}

  void take(const TransformerCase& c, const MicroBatch& slices) {
    const ModelConfig& config = model.config;
    const auto world = self_communicator();
    BalanceCounts counts(config.moe_layers(), config.routed_experts(), model.contract.balance_scope,
                         model.device());
    StepSums step(config.moe_layers(), config.routed_experts(), model.device());
    PassOptions options;
    options.ep = options.world = world.get();
    options.settings.seed = kSeed;
    options.settings.recompute = c.recompute;
    options.loss = {400.0, 1e-3, 11.0};
    counts.start_step();
    forward_backward(model, slices, options, &counts, &memory, gradients, step);
    sums = step.read(step.all());
  }
};

struct Both {
  OneStep host, device;
  RoutingGap gap;  // of the host's choices

  Both(const TransformerCase& c, at::ScalarType type)
      : host(c, On::kHost, at::kFloat), device(c, On::kDevice, type) {
    Batch all = random_batch(6, kS, host.model.config.vocab_size, c.mean_length, 5);
    if (c.losses_over == LossTokens::kLabelled) predict_answers_alone(&all);
    MicroBatch slices;
    for (int64_t s = 0; s < c.slices; ++s) slices.push_back(to_tensors(rows_of(all, s, c.slices)));
    const uint64_t clear = seed_with_clear_routing(21, [&](uint64_t seed) {
      fill_random(host.model, seed);
      for (const at::Tensor& buffer :
           {host.model.parameters.dense, host.model.parameters.experts}) {
        buffer.copy_(buffer.to(type));  // both start from the same numbers
      }
      gap = gap_of_host(slices);
      return too_close(gap.choice());
    });
    fill_random(device.model, clear);
    host.take(c, slices);
    device.take(c, slices);
  }

  RoutingGap gap_of_host(const MicroBatch& slices) const {
    PassSettings settings;
    settings.seed = kSeed;
    RoutingGap all;
    for (const Slice& slice : slices) all.take(gap_of_pass(host.model, slice, settings));
    return all;
  }
};

void expect_near(double found, double expected, double tolerance, const char* what) {
  EXPECT_NEAR(found, expected, tolerance * std::abs(expected)) << what;
}

class AgainstHost : public ::testing::TestWithParam<TransformerCase> {};

TEST_P(AgainstHost, SumsPoolsAndCounts) {
  const Both both(GetParam(), at::kFloat);
  const LossSums& found = both.device.sums;
  const LossSums& expected = both.host.sums;
  expect_near(found.cross_entropy, expected.cross_entropy, 1e-6, "cross-entropy");
  expect_near(found.z_squares, expected.z_squares, 1e-6, "z");
  EXPECT_EQ(found.labels, expected.labels);
  ASSERT_EQ(found.layers.size(), expected.layers.size());
  for (size_t layer = 0; layer < found.layers.size(); ++layer) {
    const RouterSums& a = found.layers[layer];
    const RouterSums& b = expected.layers[layer];
    expect_near(a.balance, b.balance, 1e-6, "balance");
    expect_near(a.z_squares, b.z_squares, 1e-6, "router z");
    expect_near(a.token_entropy, b.token_entropy, 1e-6, "token entropy");
    expect_near(a.document_entropy, b.document_entropy, 1e-6, "document entropy");
    EXPECT_EQ(a.tokens, b.tokens);
    EXPECT_EQ(a.documents, b.documents);
    EXPECT_EQ(a.counts, b.counts);
    EXPECT_EQ(a.pool_size, b.pool_size);
  }
}

TEST_P(AgainstHost, EveryChoice) {
  const Both both(GetParam(), at::kFloat);
  // Which of a token's experts is the better one of two may be a tie, and changes nothing.
  const bool ordered = both.gap.order >= kTieGap;
  const auto experts = [&](const at::Tensor& e) {
    return ordered ? e.cpu() : std::get<0>(e.cpu().sort(-1));
  };
  for (size_t s = 0; s < both.host.memory.slices.size(); ++s) {
    for (int64_t layer = 0; layer < both.host.model.config.n_layers; ++layer) {
      if (both.host.model.config.is_dense(layer)) continue;
      const Routing& found = both.device.memory.slices[s].blocks[layer].moe.routing;
      const Routing& expected = both.host.memory.slices[s].blocks[layer].moe.routing;
      EXPECT_TRUE(at::equal(experts(found.experts), experts(expected.experts)))
          << "experts of layer " << layer;
      EXPECT_TRUE(at::allclose(found.weights.cpu(), expected.weights, 1e-4, 1e-7));
      EXPECT_TRUE(at::equal(found.pools.cpu(), expected.pools));
      EXPECT_EQ(found.pool_sizes.defined(), expected.pool_sizes.defined());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, AgainstHost, ::testing::ValuesIn(transformer_cases()),
                         [](const auto& test) { return test.param.name; });

// bf16 parameters and activations, with every expert chosen so that none flips: the loss stays
// within 0.5 %, the gradients of dense parameters within 20 % of their norm and those of experts
// within 12 % (13.5 % and 5.9 % on a Zen 5; logits near 8 are rounded by up to 0.03).
TEST(Bf16Device, IsNearTheHostsFp32) {
  const Both both({.name = "", .pool = pool_of(kNone, 13, 13), .routed_top_k = 13}, at::kBFloat16);
  expect_near(both.device.sums.cross_entropy, both.host.sums.cross_entropy, 0.005, "cross-entropy");
  const auto expect_within = [](const at::Tensor& found, const at::Tensor& expected, double part) {
    EXPECT_EQ(found.scalar_type(), at::kFloat);
    EXPECT_LE((found.cpu() - expected).norm().item<double>(),
              part * expected.norm().item<double>());
  };
  const FlatBuffers& expected = both.host.gradients.buffers;
  expect_within(both.device.gradients.buffers.dense, expected.dense, 0.2);
  expect_within(both.device.gradients.buffers.experts, expected.experts, 0.12);
}

TEST(Device, RefusesWidthsThatItCannotCompute) {
  ModelConfig config = small_config();  // d_expert 10
  const auto make = [&](at::ScalarType type) {
    Model(config, {}, kS, {}, {}, make_backend_on(On::kDevice, device_under_test(), type));
  };
  EXPECT_THAT([&] { make(at::kFloat); },
              ThrowsMessage<c10::Error>(
                  HasSubstr("widths must be multiples of 4, d_model is 24, d_expert 10")));
  config.d_expert = 12;
  EXPECT_NO_THROW(make(at::kFloat));
  EXPECT_THAT([&] { make(at::kBFloat16); },
              ThrowsMessage<c10::Error>(HasSubstr("in bf16 widths must be multiples of 8")));
}

TEST(Device, RefusesACopyForEachExpert) {
  const OneStep one({.name = ""}, On::kDevice, at::kFloat);
  fill_random(one.model, 3);
  const auto world = self_communicator();
  PassOptions options;
  options.ep = world.get();
  options.settings.exchange = ExchangeMode::kOncePerExpert;
  Activations activations;
  PassBuffers buffers;
  EXPECT_THAT(
      [&] {
        forward(one.model, to_tensors(random_batch(1, kS, 61, 9, 5)), options, &activations,
                &buffers);
      },
      ThrowsMessage<c10::Error>(HasSubstr("once to each rank")));
}

}  // namespace
}  // namespace emo

#include "model/host/router.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <set>

#include "model/host/document_pools.h"
#include "model/host/simd.h"
#include "model/philox.h"
#include "model/pool_sizes.h"
#include "model/router_jitter.h"

namespace emo {
namespace {

TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox({0, 0}, {0, 0, 0, 0}),
            (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
}

TEST(PoolSizes, KnownAnswers) {
  PoolPolicy policy;  // U[8, 128]
  const auto draw = [&](int64_t sequence, int32_t ordinal, int64_t layer,
                        PoolDraw mode = PoolDraw::kPerLayer) {
    return draw_pool_size(policy, mode, 12536, sequence, ordinal, layer);
  };
  EXPECT_EQ(draw(0, 0, 0), 39);
  EXPECT_EQ(draw(0, 0, 1), 71);
  EXPECT_EQ(draw(0, 1, 0), 20);
  EXPECT_EQ(draw(5000000000, 3, 15), 50);
  EXPECT_EQ(draw(0, 0, 7, PoolDraw::kPerDocument), 49);
}

TEST(PoolSizes, AreUniformOverTheirRange) {
  PoolPolicy policy;
  policy.min = 3;
  policy.max = 7;
  std::vector<int> seen(10);
  for (int64_t sequence = 0; sequence < 5000; ++sequence) {
    ++seen[draw_pool_size(policy, PoolDraw::kPerLayer, 1, sequence, 0, 0)];
  }
  EXPECT_EQ(seen[2] + seen[8], 0);
  for (int size = 3; size <= 7; ++size) EXPECT_NEAR(seen[size], 1000, 120);
}

// A document's draw for all layers is one number, scaled to the range of each.
TEST(PoolSizes, HaveTheMinimumOfTheirLayer) {
  PoolPolicy policy;
  policy.min_by_layer = {8, 40, 128};
  for (const PoolDraw mode : {PoolDraw::kPerLayer, PoolDraw::kPerDocument}) {
    for (int64_t sequence = 0; sequence < 50; ++sequence) {
      for (int64_t layer = 0; layer < 3; ++layer) {
        PoolPolicy alone;
        alone.min = policy.min_by_layer[layer];
        EXPECT_EQ(draw_pool_size(policy, mode, 7, sequence, 1, layer),
                  draw_pool_size(alone, mode, 7, sequence, 1, layer));
      }
    }
  }
  EXPECT_EQ(draw_pool_size(policy, PoolDraw::kPerLayer, 7, 3, 0, 2), 128);
  EXPECT_EQ(policy.of_layer(1).min, 40);
  EXPECT_EQ(policy.of_layer(1).min_of(2), 40);
}

TEST(PoolSizes, ShrinkFromAllExpertsToTheirRange) {
  PoolPolicy policy;  // {8, 128}
  policy.min_by_layer = {8, 40};
  const PoolSchedule schedule{100};
  const auto ends = [&](int64_t updates) {
    const PoolPolicy now = scheduled_policy(policy, schedule, 127, updates);
    EXPECT_EQ(now.min_by_layer[0], now.min);
    return std::vector<int64_t>{now.min, now.max, now.min_by_layer[1]};
  };
  EXPECT_EQ(ends(0), (std::vector<int64_t>{127, 127, 127}));
  EXPECT_EQ(ends(1), (std::vector<int64_t>{126, 127, 126}));  // 125.81, 127.01, 126.13
  EXPECT_EQ(ends(50), (std::vector<int64_t>{68, 128, 84}));   // 67.5, 127.5, 83.5: to even
  EXPECT_EQ(ends(99), (std::vector<int64_t>{9, 128, 41}));    // 9.19, 127.99, 40.87
  EXPECT_EQ(ends(100), (std::vector<int64_t>{8, 128, 40}));
  EXPECT_EQ(ends(5000), (std::vector<int64_t>{8, 128, 40}));
  EXPECT_EQ(scheduled_policy(policy, {}, 127, 3).min, 8);
}

std::vector<uint8_t> pools_of(const Routing& routing) {
  const auto* in = routing.pools.const_data_ptr<uint8_t>();
  return {in, in + routing.pools.numel()};
}

int64_t pool_size(const RouterInput& input, int64_t document) {
  return input.pool_sizes[document].item<int32_t>();
}

RouterInput random_input(int64_t T, int64_t E, int64_t documents, std::mt19937_64* random) {
  std::set<int32_t> ends = {static_cast<int32_t>(T)};
  while (static_cast<int64_t>(ends.size()) < std::min(documents, T)) {
    ends.insert(static_cast<int32_t>(1 + (*random)() % static_cast<uint64_t>(T)));
  }
  std::vector<int32_t> with_zero = {0};
  with_zero.insert(with_zero.end(), ends.begin(), ends.end());
  RouterInput input;
  input.logits = at::empty({T, E});
  std::normal_distribution<float> normal(0, 2);
  for (int64_t i = 0; i < T * E; ++i) input.logits.mutable_data_ptr<float>()[i] = normal(*random);
  input.spans = make_spans(at::tensor(with_zero, at::kInt), T, at::kCPU);
  std::vector<int32_t> sizes;
  for (size_t d = 0; d < ends.size(); ++d) {
    sizes.push_back(4 + static_cast<int32_t>((*random)() % static_cast<uint64_t>(E)));
  }
  input.pool_sizes = tensor_of(sizes);
  input.top_k = 4;
  return input;
}

// The pool of each document by a loop over its tokens, in fp64.
std::vector<uint8_t> slow_pools(const RouterInput& input, double* smallest_gap) {
  const int64_t E = input.logits.size(1);
  const auto* z = input.logits.const_data_ptr<float>();
  const auto* ends = input.spans.ends.const_data_ptr<int32_t>();
  std::vector<uint8_t> pools;
  for (int64_t d = 0; d < input.spans.N; ++d) {
    std::vector<double> q(E);
    for (int64_t t = ends[d]; t < ends[d + 1]; ++t) {
      double sum = 0;
      for (int64_t e = 0; e < E; ++e) sum += std::exp(static_cast<double>(z[t * E + e]));
      for (int64_t e = 0; e < E; ++e) q[e] += std::exp(static_cast<double>(z[t * E + e])) / sum;
    }
    std::vector<int64_t> ranked(E);
    std::iota(ranked.begin(), ranked.end(), 0);
    std::stable_sort(ranked.begin(), ranked.end(),
                     [&](int64_t a, int64_t b) { return q[a] > q[b]; });
    const int64_t size = std::min(pool_size(input, d), E);
    std::vector<uint8_t> pool(E);
    for (int64_t i = 0; i < size; ++i) pool[ranked[i]] = 1;
    if (size < E)
      *smallest_gap =
          std::min(*smallest_gap, (q[ranked[size - 1]] - q[ranked[size]]) / q[ranked[size]]);
    pools.insert(pools.end(), pool.begin(), pool.end());
  }
  return pools;
}

TEST(Jitter, IsUniformAndItsCountersAreNotThoseOfPoolSizes) {
  constexpr float kEpsilon = 0.25f;
  double sum = 0, squares = 0, least = 2, most = 0;
  constexpr int kTokens = 2000;
  for (int64_t t = 0; t < kTokens; ++t) {
    for (const uint32_t word : jitter_words(3, 5000000000, t, 1, 7)) {
      const double factor = jitter_factor(word, kEpsilon);
      sum += factor;
      squares += (factor - 1) * (factor - 1);
      least = std::min(least, factor);
      most = std::max(most, factor);
    }
  }
  EXPECT_NEAR(sum / (4 * kTokens), 1, 0.005);
  EXPECT_NEAR(squares / (4 * kTokens), kEpsilon * kEpsilon / 3, 0.001);
  EXPECT_NEAR(least, 0.75, 1e-3);
  EXPECT_NEAR(most, 1.25, 1e-3);
  EXPECT_GE(jitter_factor(0x80000000u, kEpsilon), 0.75f);
  EXPECT_LE(jitter_factor(0x7FFFFFFFu, kEpsilon), 1.25f);
  // (sequence, 0, position or ordinal, last word)
  EXPECT_EQ(jitter_words(3, 9, 2, 1, 7),
            philox(philox_key(3), {9, 0, 2, 0x80000000u + 65536u + 7u}));
  ModelConfig config;
  config.d_model = 262144;
  config.n_layers = 32767;
  EXPECT_TRUE(jitter_fits(config));
  // The largest last word, of layer 32766 and block 65535, is below a draw's for all layers.
  EXPECT_LT(0x80000000u + 32766u * 65536u + 65535u, 0xFFFFFFFFu);
  config.n_layers = 32768;
  EXPECT_FALSE(jitter_fits(config));
}

TEST(Router, PoolsEqualThoseOfASlowLoop) {
  std::mt19937_64 random(1);
  RoutingContract contract;
  int compared = 0;
  for (const int64_t documents : {1, 2, 3, 7, 20, 64, 150, 300}) {
    for (const int64_t T : {1, 5, 64, 65, 300, 1000}) {
      for (const int64_t E : {15, 31, 127}) {
        const RouterInput input = random_input(T, E, documents, &random);
        double gap = 1;
        const std::vector<uint8_t> expected = slow_pools(input, &gap);
        if (gap < 1e-5) continue;  // a tie within rounding: either choice is right
        Routing routing;
        route(input, contract, &routing);
        EXPECT_EQ(pools_of(routing), expected)
            << documents << " documents, " << T << " tokens, " << E;
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, 120);  // of 144
}

TEST(Router, ChoosesTheLargestInsideThePoolOnly) {
  std::mt19937_64 random(2);
  const RouterInput input = random_input(200, 21, 9, &random);
  Routing routing;
  route(input, RoutingContract(), &routing);
  const auto* ends = input.spans.ends.const_data_ptr<int32_t>();
  const auto* z = input.logits.const_data_ptr<float>();
  for (int64_t d = 0; d < input.spans.N; ++d) {
    const uint8_t* pool = routing.pools.const_data_ptr<uint8_t>() + d * 21;
    EXPECT_EQ(std::accumulate(pool, pool + 21, 0), std::min<int64_t>(pool_size(input, d), 21));
    for (int64_t t = ends[d]; t < ends[d + 1]; ++t) {
      std::vector<int32_t> ranked;
      double sum = 0;
      for (int32_t e = 0; e < 21; ++e) {
        if (pool[e]) ranked.push_back(e), sum += std::exp(static_cast<double>(z[t * 21 + e]));
      }
      std::stable_sort(ranked.begin(), ranked.end(),
                       [&](int32_t a, int32_t b) { return z[t * 21 + a] > z[t * 21 + b]; });
      for (int64_t k = 0; k < 4; ++k) {
        EXPECT_EQ(routing.experts[t][k].item<int32_t>(), ranked[k]);
        EXPECT_NEAR(routing.weights[t][k].item<float>(),
                    std::exp(static_cast<double>(z[t * 21 + ranked[k]])) / sum, 1e-6);
      }
    }
  }
}

TEST(Router, BiasesChooseAndDoNotWeigh) {
  std::mt19937_64 random(9);
  RouterInput input = random_input(100, 11, 4, &random);
  input.bias = at::empty({11});
  std::normal_distribution<float> normal(-0.5f, 0.5f);
  for (int64_t e = 0; e < 11; ++e) input.bias.mutable_data_ptr<float>()[e] = normal(random);
  for (const MaskTime mask : {MaskTime::kBeforeSoftmax, MaskTime::kAfterSoftmax}) {
    RoutingContract contract;
    contract.mask = mask;
    Routing plain, biased;
    RouterInput without = input;
    without.bias.reset();
    route(without, contract, &plain);
    route(input, contract, &biased);
    EXPECT_TRUE(at::equal(biased.pools, plain.pools));
    EXPECT_FALSE(at::equal(biased.experts, plain.experts));
    const auto* ends = input.spans.ends.const_data_ptr<int32_t>();
    for (int64_t d = 0; d < input.spans.N; ++d) {
      const at::Tensor pool = plain.pools[d].to(at::kBool);
      for (int64_t t = ends[d]; t < ends[d + 1]; ++t) {
        const at::Tensor z = input.logits[t];
        const at::Tensor outside = pool.logical_not();
        const at::Tensor scores = mask == MaskTime::kBeforeSoftmax
                                      ? z.masked_fill(outside, -INFINITY).softmax(0)
                                      : z.softmax(0);
        const at::Tensor keys = (scores + input.bias).masked_fill(outside, -INFINITY);
        const at::Tensor chosen = std::get<1>(keys.topk(4));
        EXPECT_TRUE(at::equal(biased.experts[t].to(at::kLong), chosen));
        EXPECT_TRUE(at::allclose(biased.weights[t], scores.index_select(0, chosen), 1e-5, 1e-7));
      }
    }
  }
}

TEST(Router, TiesKeepTheLowerIndex) {
  RouterInput input;
  input.logits = at::zeros({6, 9});
  input.spans = make_spans(tensor_of({0, 2, 6}), 6, at::kCPU);
  input.pool_sizes = tensor_of({5, 4});
  input.top_k = 3;
  Routing routing;
  route(input, RoutingContract(), &routing);
  EXPECT_EQ(pools_of(routing),
            (std::vector<uint8_t>{1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0}));
  for (int64_t t = 0; t < 6; ++t) {
    for (int64_t k = 0; k < 3; ++k) EXPECT_EQ(routing.experts[t][k].item<int32_t>(), k);
  }
}

TEST(Router, ResultDoesNotDependOnNeighboursInTheBatch) {
  std::mt19937_64 random(3);
  const RouterInput all = random_input(500, 31, 12, &random);
  Routing whole;
  route(all, RoutingContract(), &whole);
  const auto* ends = all.spans.ends.const_data_ptr<int32_t>();
  for (int64_t d = 0; d < all.spans.N; ++d) {
    RouterInput alone = all;
    alone.logits = all.logits.slice(0, ends[d], ends[d + 1]).contiguous();
    const int32_t length = ends[d + 1] - ends[d];
    alone.spans = make_spans(tensor_of({0, length}), length, at::kCPU);
    alone.pool_sizes = all.pool_sizes.slice(0, d, d + 1);
    Routing routing;
    route(alone, RoutingContract(), &routing);
    EXPECT_TRUE(at::equal(routing.weights, whole.weights.slice(0, ends[d], ends[d + 1])));
    EXPECT_TRUE(at::equal(routing.experts, whole.experts.slice(0, ends[d], ends[d + 1])));
  }
}

TEST(Router, SubsetsAreWhatASmallerModelWouldDo) {
  std::mt19937_64 random(4);
  RouterInput input = random_input(50, 12, 3, &random);
  RoutingContract contract;
  input.pool = PoolPolicy::none();
  Routing full;
  route(input, contract, &full);
  input.subset.kept = {0, 1, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1};
  const std::vector<int64_t> kept = {1, 2, 5, 8, 11};
  Routing cut, weighed;
  route(input, contract, &cut);
  input.subset.full_weights = true;
  route(input, contract, &weighed);
  RouterInput smaller = input;
  smaller.subset = {};
  smaller.logits = input.logits.index_select(1, at::tensor(kept, at::kLong)).contiguous();
  Routing expected;
  route(smaller, contract, &expected);
  for (int64_t t = 0; t < 50; ++t) {
    for (int64_t k = 0; k < 4; ++k) {
      const int64_t e = kept[expected.experts[t][k].item<int32_t>()];
      EXPECT_EQ(cut.experts[t][k].item<int32_t>(), e);
      EXPECT_EQ(weighed.experts[t][k].item<int32_t>(), e);
      EXPECT_NEAR(cut.weights[t][k].item<float>(), expected.weights[t][k].item<float>(), 1e-6);
      const float in_full = input.logits[t].softmax(0)[e].item<float>();
      EXPECT_NEAR(weighed.weights[t][k].item<float>(), in_full, 1e-6);
    }
  }
}

TEST(Router, TakesGivenPoolsAndChoosesTheOthers) {
  std::mt19937_64 random(6);
  RouterInput input = random_input(30, 8, 2, &random);
  RoutingContract contract;
  input.pool = {PoolPolicy::Kind::kRange, 3, 3, 0, {}};
  const int64_t spans = input.spans.N;
  input.pool_sizes = at::full({spans}, 3, at::kInt);
  Routing chosen;
  route(input, contract, &chosen);
  std::vector<uint8_t> given(spans * 8, 0);
  std::fill_n(given.begin() + (spans - 1) * 8 + 1, 3, 1);  // of the last document
  input.subset.pools = given;
  Routing routing;
  route(input, contract, &routing);
  std::vector<uint8_t> expected = pools_of(chosen);
  std::copy_n(given.end() - 8, 8, expected.end() - 8);
  EXPECT_EQ(pools_of(routing), expected);
  const auto* ends = input.spans.ends.const_data_ptr<int32_t>();
  for (int64_t t = ends[spans - 1]; t < 30; ++t) {
    for (int64_t k = 0; k < 2; ++k) {
      EXPECT_GE(routing.experts[t][k].item<int32_t>(), 1);
      EXPECT_LE(routing.experts[t][k].item<int32_t>(), 3);
    }
  }
}

TEST(Router, FewerKeptThanTopKLeavesSlotsUnused) {
  std::mt19937_64 random(5);
  RouterInput input = random_input(10, 8, 2, &random);
  input.subset.kept = {0, 1, 0, 0, 0, 0, 1, 0};
  RoutingContract contract;
  input.pool = PoolPolicy::none();
  Routing routing;
  route(input, contract, &routing);
  for (int64_t t = 0; t < 10; ++t) {
    EXPECT_EQ(routing.experts[t][2].item<int32_t>(), -1);
    EXPECT_NEAR(routing.weights[t].sum().item<float>(), 1, 1e-6);
  }
}

TEST(FastExp, IsCloseToExp) {
  double worst = 0;
  for (float x = -87; x < 88; x += 0.00137f) {
    worst = std::max(worst, std::abs(fast_exp(x) / std::exp(static_cast<double>(x)) - 1));
  }
  EXPECT_LT(worst, 2.5e-7);
  EXPECT_LT(fast_exp(-1000), 1.7e-38f);
  EXPECT_EQ(fast_exp(0), 1.0f);
}

}  // namespace
}  // namespace emo

// Decoding with a cache against the same tokens in one pass.
#include <ATen/ops/empty.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "eval/generation/sampling.h"
#include "eval/loss/sequence_batch.h"
#include "model/device/backend.h"
#include "model/inference.h"
#include "model/key_value_cache.h"
#include "parallel/self_communicator.h"
#include "tests/model/clear_routing.h"
#include "tests/model/random_batch.h"
#include "tests/model/sample_configs.h"

namespace emo {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using Pools = std::vector<std::vector<uint8_t>>;  // [L], of all sequences one after another

struct Case {
  ModelConfig config = small_config();
  PoolPolicy pool;
  RoutingContract contract;
  bool on_device = false;
  std::vector<int64_t> lengths = {190, 1, 7, 70};  // attention computes 64 queries at once
  std::vector<int64_t> prompts = {90, 1, 3, 64};
};

class Decoder {
 public:
  explicit Decoder(const Case& c)
      : case_(c),
        model_(c.config, c.contract, 200, {}, {},
               c.on_device ? device::make_backend(at::kCPU, at::kFloat) : nullptr),
        mesh_(make_mesh(self_communicator(), 1, 1).value()),
        inference_(&model_, mesh_) {
    std::mt19937_64 random(3);
    for (const int64_t length : c.lengths) {
      tokens_.emplace_back();
      for (int64_t t = 0; t < length; ++t) {
        tokens_.back().push_back(static_cast<int32_t>(random() % c.config.vocab_size));
      }
    }
    seed_with_clear_routing(5, [&](uint64_t seed) {
      fill_random(model_, seed);
      return too_close(gap_of_one_pass());
    });
  }

  // The last block's output [T, D] of tokens [from, to) of each sequence.
  std::vector<float> pass(const std::vector<int64_t>& from, const std::vector<int64_t>& to,
                          KeyValueCache* cache, const Pools& given, Pools* chosen) {
    std::vector<Sequence> sequences;
    if (cache != nullptr) cache->slots.clear();
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (from[i] == to[i]) continue;
      if (cache != nullptr) cache->slots.push_back(static_cast<int64_t>(i));
      sequences.push_back({{tokens_[i].begin() + from[i], tokens_[i].begin() + to[i]},
                           1,
                           static_cast<int64_t>(i),
                           0,
                           from[i]});
    }
    InferenceOptions options;
    options.settings.pool = case_.pool;
    options.cache = cache;
    if (!given.empty()) {
      options.settings.subsets.resize(case_.config.n_layers);
      const int64_t E = case_.config.routed_experts();
      for (int64_t layer = 0; layer < case_.config.n_layers; ++layer) {
        for (const Sequence& s : sequences) {
          const auto row = given[layer].begin() + s.number * E;
          options.settings.subsets[layer].pools.insert(options.settings.subsets[layer].pools.end(),
                                                       row, row + E);
        }
      }
    }
    const Slice batch = sequence_batch(sequences);
    std::vector<float> last;
    options.want_states = true;
    options.after_block = [&](const BlockView& block) {
      if (chosen != nullptr) {
        const auto* in = block.pools.const_data_ptr<uint8_t>();
        chosen->emplace_back(in, in + block.pools.numel());
      }
      gap_.take(routing_gap(inference_, options, batch, block));
      const auto* y = block.y.const_data_ptr<float>();
      last.assign(y, y + block.y.numel());
    };
    inference_.run(batch, options);
    return last;
  }

  // Of the experts of all tokens in the pools of the prompts; nothing chooses pools twice.
  double gap_of_one_pass() {
    const std::vector<int64_t> none(case_.lengths.size(), 0);
    Pools pools;
    pass(none, case_.prompts, nullptr, {}, &pools);
    gap_ = {};
    pass(none, case_.lengths, nullptr, pools, nullptr);
    return gap_.experts;
  }

  KeyValueCache make_cache(int64_t sequences, int64_t tokens) const {
    return inference_.make_cache(sequences, tokens);
  }

  void compare() {
    const size_t N = case_.lengths.size();
    const int64_t D = case_.config.d_model;
    KeyValueCache cache = inference_.make_cache(static_cast<int64_t>(N), 190);
    std::vector<int64_t> at(N, 0);
    std::vector<int64_t> next = case_.prompts;
    Pools pools;
    std::vector<std::vector<float>> decoded(N);
    std::mt19937_64 random(8);
    while (at[0] < case_.lengths[0]) {
      const bool first = pools.empty();
      const std::vector<float> x = pass(at, next, &cache, pools, first ? &pools : nullptr);
      auto row = x.begin();
      for (size_t i = 0; i < N; ++i) {
        decoded[i].insert(decoded[i].end(), row, row + (next[i] - at[i]) * D);
        row += (next[i] - at[i]) * D;
      }
      at = next;
      for (size_t i = 0; i < N; ++i) {  // sometimes none, the first sequence always some
        const auto more = static_cast<int64_t>(random() % 4) + (i == 0 ? 1 : 0);
        next[i] = std::min(case_.lengths[i], at[i] + more);
      }
    }
    const std::vector<float> whole =
        pass(std::vector<int64_t>(N, 0), case_.lengths, nullptr, pools, nullptr);
    auto expected = whole.begin();
    for (size_t i = 0; i < N; ++i) {
      ASSERT_EQ(static_cast<int64_t>(decoded[i].size()), case_.lengths[i] * D);
      for (const float value : decoded[i])
        ASSERT_NEAR(value, *expected++, 1e-4) << "sequence " << i;
    }
  }

 private:
  const Case case_;
  Model model_;
  std::vector<std::vector<int32_t>> tokens_;
  const Mesh mesh_;
  Inference inference_;
  RoutingGap gap_;  // of the passes so far
};

TEST(DecodingTest, EqualsOnePassWithoutPools) {
  Case c;
  c.pool.kind = PoolPolicy::Kind::kNone;
  Decoder(c).compare();
}

TEST(DecodingTest, KeepsThePoolsOfThePrompts) {
  Case c;
  c.pool = {PoolPolicy::Kind::kRange, 5, 5, 0, {}};
  Decoder(c).compare();
  c.contract.mask = MaskTime::kAfterSoftmax;
  Decoder(c).compare();
}

TEST(DecodingTest, NormalisesQueriesAndKeys) {
  Case c;
  c.config.qk_norm = true;
  c.pool.kind = PoolPolicy::Kind::kNone;
  Decoder(c).compare();
}

TEST(DecodingTest, TellsAFullCache) {
  for (const bool on_device : {false, true}) {
    Case c;
    c.config.d_expert = 12;
    c.on_device = on_device;
    c.pool.kind = PoolPolicy::Kind::kNone;
    Decoder decoder(c);
    KeyValueCache cache = decoder.make_cache(4, 100);
    EXPECT_THAT(
        [&] {
          decoder.pass({0, 0, 0, 0}, c.lengths, &cache, {}, nullptr);
        },
        ThrowsMessage<c10::Error>(HasSubstr("a cache of 100 tokens is full")));
  }
}

TEST(DecodingTest, EqualsOnePassOnADevice) {
  Case c;
  c.config.d_expert = 12;
  c.config.qk_norm = true;
  c.on_device = true;
  c.pool.kind = PoolPolicy::Kind::kNone;
  Decoder(c).compare();
  c.pool = {PoolPolicy::Kind::kRange, 5, 5, 0, {}};
  Decoder(c).compare();
}

// The share of each token among many draws.
std::vector<double> shares(const std::vector<float>& logits, const SamplingOptions& options) {
  std::vector<double> counts(logits.size(), 0.0);
  std::mt19937_64 random(1);
  constexpr int kDraws = 100000;
  for (int i = 0; i < kDraws; ++i) {
    ++counts[sample(logits.data(), static_cast<int64_t>(logits.size()), options, random())];
  }
  for (double& count : counts) count /= kDraws;
  return counts;
}

TEST(SamplingTest, FollowsTheSoftmax) {
  const std::vector<float> logits = {0.5f, 2.0f, -1.0f, 2.0f};
  for (const double temperature : {0.5, 1.0, 2.0}) {
    double sum = 0;
    for (const float z : logits) sum += std::exp(z / temperature);
    const std::vector<double> found = shares(logits, {temperature, 1, 0});
    for (size_t v = 0; v < logits.size(); ++v) {
      EXPECT_NEAR(found[v], std::exp(logits[v] / temperature) / sum, 0.01);
    }
  }
}

TEST(SamplingTest, TopPKeepsTheFewestThatReachIt) {
  // Probabilities 0.5, 0.3, 0.2.
  const std::vector<float> logits = {std::log(0.2f), std::log(0.5f), std::log(0.3f)};
  EXPECT_NEAR(shares(logits, {1, 0.45, 0})[1], 1, 0);
  const std::vector<double> two = shares(logits, {1, 0.75, 0});
  EXPECT_EQ(two[0], 0);
  EXPECT_NEAR(two[1], 0.625, 0.01);
  EXPECT_GT(shares(logits, {1, 0.9, 0})[0], 0.19);
}

TEST(SamplingTest, GreedyTakesTheFirstOfTheLargest) {
  const std::vector<float> logits = {0, 3, 1, 3};
  EXPECT_EQ(sample(logits.data(), 4, {}, 7), 1);
}

}  // namespace
}  // namespace emo

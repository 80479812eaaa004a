#include "data/order/mix_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

namespace emo {
namespace {

using ::testing::HasSubstr;

std::vector<WeightedSource> three() {
  return {{"web", 0, 1000, 0.7}, {"code", 1000, 90, 0.25}, {"books", 1090, 7, 0.05, 40}};
}

size_t source_of(const std::vector<WeightedSource>& sources, int64_t chunk) {
  for (size_t i = 0; i < sources.size(); ++i) {
    if (chunk >= sources[i].first_chunk && chunk < sources[i].first_chunk + sources[i].chunks) {
      return i;
    }
  }
  ADD_FAILURE() << chunk;
  return 0;
}

TEST(MixOrder, EveryStretchHasTheSharesThatWeightsSay) {
  const std::vector<WeightedSource> sources = three();
  const auto order = MixOrder::create(sources, Order::kOurs, 3).value();
  std::vector<int64_t> taken(3, 0);
  for (int64_t i = 0; i < 20000; ++i) {
    const std::vector<SourcePosition> positions = order->positions(i);
    for (size_t s = 0; s < 3; ++s) {
      ASSERT_EQ(positions[s].sequences, taken[s]) << i;  // by counting
      ASSERT_LE(
          std::abs(static_cast<double>(taken[s]) - sources[s].weight * static_cast<double>(i)), 2)
          << i;
    }
    ++taken[source_of(sources, order->chunk(i))];
  }
  EXPECT_EQ(taken, (std::vector<int64_t>{14000, 5000, 1000}));
}

TEST(MixOrder, GoesThroughEachSourceEpochByEpoch) {
  const std::vector<WeightedSource> sources = three();
  const auto order = MixOrder::create(sources, Order::kOurs, 3).value();
  std::vector<std::vector<int64_t>> seen(3);
  for (int64_t i = 0; i < 9000; ++i) {
    const int64_t chunk = order->chunk(i);
    seen[source_of(sources, chunk)].push_back(chunk);
  }
  for (size_t s = 0; s < 3; ++s) {
    const auto n = static_cast<size_t>(sources[s].chunks);
    std::vector<int64_t> before;
    for (size_t epoch = 0; (epoch + 1) * n <= seen[s].size(); ++epoch) {
      const std::vector<int64_t> one(seen[s].begin() + static_cast<int64_t>(epoch * n),
                                     seen[s].begin() + static_cast<int64_t>((epoch + 1) * n));
      EXPECT_EQ(std::set<int64_t>(one.begin(), one.end()).size(), n);
      EXPECT_NE(one, before);  // another order
      before = one;
    }
  }
}

// However many sources there are, and of equal weights too.
TEST(MixOrder, NoSourceIsEverAWholeRowAheadOrBehind) {
  std::vector<std::vector<double>> mixes = {{0.5, 0.1, 0.1, 0.1, 0.1, 0.1}, {1}, {1, 1}, {3, 1, 2}};
  mixes.emplace_back(100, 0.005);
  mixes.back().push_back(0.5);
  mixes.emplace_back();
  for (int i = 0; i < 40; ++i) mixes.back().push_back(1.0 / (1 + i));
  for (const std::vector<double>& weights : mixes) {
    std::vector<WeightedSource> sources;
    for (size_t i = 0; i < weights.size(); ++i) {
      sources.push_back({std::to_string(i), static_cast<int64_t>(i), 1, weights[i]});
    }
    const auto order = MixOrder::create(sources, Order::kSequential, 0).value();
    const std::vector<double> shares = order->shares();
    std::vector<int64_t> taken(weights.size(), 0);
    for (int64_t n = 1; n <= 5000; ++n) {
      ++taken[order->chunk(n - 1)];
      for (size_t i = 0; i < weights.size(); ++i) {
        ASSERT_LT(std::abs(static_cast<double>(taken[i]) - shares[i] * static_cast<double>(n)), 1)
            << weights.size() << " sources, place " << n;
      }
    }
  }
}

TEST(MixOrder, HugeWeightsAreWeightsToo) {
  const auto order = MixOrder::create({{"a", 0, 1, 1e308}, {"b", 1, 1, 1e308}, {"c", 2, 1, 2e307}},
                                      Order::kSequential, 0);
  EXPECT_NEAR((*order)->shares()[0], 1 / 2.2, 1e-6);
  EXPECT_NEAR((*order)->shares()[2], 0.2 / 2.2, 1e-6);
}

// What the others are, and where it stands in the list, does not change a source's own order.
TEST(MixOrder, ASourceKeepsItsOrderInAnotherMix) {
  const auto of_code = [](std::vector<WeightedSource> sources) {
    const auto order = MixOrder::create(sources, Order::kOurs, 3).value();
    std::vector<int64_t> chunks;
    for (int64_t i = 0; chunks.size() < 200; ++i) {
      const int64_t chunk = order->chunk(i);
      const WeightedSource& source = sources[source_of(sources, chunk)];
      if (source.label == "code") chunks.push_back(chunk - source.first_chunk);
    }
    return chunks;
  };
  EXPECT_EQ(of_code(three()), of_code({{"code", 0, 90, 2}, {"new", 90, 30, 1}}));
}

TEST(MixOrder, SourcesThatWouldBeReadTooOftenAreNamed) {
  const auto order = MixOrder::create(three(), Order::kOurs, 0).value();
  EXPECT_TRUE(order->check_epochs(7 * 40 * 20).ok());
  const absl::Status status = order->check_epochs(7 * 40 * 20 + 20);
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("'books': the run takes 281 sequences, 40.143 epochs of its 7"));
  EXPECT_TRUE(
      absl::IsInvalidArgument(MixOrder::create({{"a", 0, 0, 1}}, Order::kOurs, 0).status()));
}

TEST(MixOrder, SharesAreWeightsAndSmallSourcesHaveAPlace) {
  std::vector<WeightedSource> sources = {{"all", 0, 10, 1}, {"tiny", 10, 10, 1e-9}};
  for (int i = 0; i < 998; ++i) {
    sources.push_back({std::to_string(i), 20 + i, 1, 1.0 / (3 + i)});
  }
  const auto order = MixOrder::create(sources, Order::kSequential, 0).value();
  double sum = 0;
  for (const WeightedSource& source : sources) sum += source.weight;
  const std::vector<double> shares = order->shares();
  for (size_t i = 0; i < shares.size(); ++i) {
    EXPECT_GE(shares[i], 1e-6);
    EXPECT_NEAR(shares[i], sources[i].weight / sum, 1.5e-6);
  }
  // Weights of two decimals repeat after at most a hundred.
  const auto round = MixOrder::create({{"a", 0, 9, 0.1}, {"b", 9, 9, 0.2}, {"c", 18, 9, 0.7}},
                                      Order::kSequential, 0);
  EXPECT_EQ((*round)->shares(), (std::vector<double>{0.1, 0.2, 0.7}));
}

}  // namespace
}  // namespace emo

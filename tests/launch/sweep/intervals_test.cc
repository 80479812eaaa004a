#include "launch/sweep/intervals.h"

#include <gtest/gtest.h>

#include <cmath>

#include "launch/sweep/comparison.h"

namespace emo {
namespace {

// Tables of Student's t, 97.5 %.
TEST(Intervals, TQuantilesAreThoseOfTheTables) {
  const std::pair<int, double> known[] = {{1, 12.7062},  {2, 4.30265},  {3, 3.18245},
                                          {4, 2.77645},  {5, 2.57058},  {9, 2.26216},
                                          {30, 2.04227}, {100, 1.98397}};
  for (const auto& [degrees, value] : known) {
    EXPECT_NEAR(t_quantile(degrees), value, 1e-4) << degrees;
  }
}

TEST(Intervals, OverSeeds) {
  const Interval interval = interval_over_seeds({0.01, 0.02, 0.06});
  // mean 0.03, deviation 0.0264575, 4.30265 * 0.0264575 / sqrt(3) = 0.0657236
  EXPECT_NEAR(interval.low, 0.03 - 0.0657236, 1e-6);
  EXPECT_NEAR(interval.high, 0.03 + 0.0657236, 1e-6);
  EXPECT_TRUE(std::isnan(standard_deviation({1.0})));
}

// Of many documents of one token a bootstrap's interval is the normal one.
TEST(Intervals, OverDocumentsIsTheNormalOneOfManyDocuments) {
  DocumentSums domain;
  for (int i = 0; i < 1000; ++i) {
    domain.nats.push_back(i % 2 == 0 ? 1.0 : 3.0);
    domain.tokens.push_back(1.0);
  }
  const Interval interval = interval_over_documents({domain}, 1);
  const double half = 1.96 * 1.0 / std::sqrt(1000.0);
  EXPECT_NEAR(interval.low, 2 - half, 0.1 * half);
  EXPECT_NEAR(interval.high, 2 + half, 0.1 * half);
}

TEST(Intervals, DomainsWeighTheSameAndThoseWithoutTokensNothing) {
  const DocumentSums large{{10, 10, 10}, {10, 10, 10}}, small{{3}, {1}}, empty{{0, 0}, {0, 0}};
  EXPECT_DOUBLE_EQ(mean_over_domains({large, small, empty}), 2.0);
  const Interval interval = interval_over_documents({large, small, empty}, 1);
  EXPECT_DOUBLE_EQ(interval.low, 2.0);
  EXPECT_DOUBLE_EQ(interval.high, 2.0);
}

Column column_of(const std::vector<double>& nats) {
  Column column;
  for (size_t i = 0; i < nats.size(); ++i) {
    column["domain"].ids.push_back(i % 2 == 0 ? "same" : std::to_string(i));  // ids may repeat
    column["domain"].sums.nats.push_back(nats[i]);
    column["domain"].sums.tokens.push_back(2);
  }
  return column;
}

TEST(Comparison, IsPairedBySeedAndDocument) {
  const ColumnBySeed baseline = {{1, column_of({1, 9, 4})}, {2, column_of({5, 2, 30})}};
  const ColumnBySeed arm = {
      {1, column_of({1.2, 9.2, 4.2})}, {2, column_of({5.4, 2.4, 30.4})}, {3, column_of({0, 0, 0})}};
  const std::optional<Comparison> c = compare(arm, baseline);
  ASSERT_TRUE(c);
  EXPECT_NEAR(c->by_seed.at(1), 0.1, 1e-12);
  EXPECT_NEAR(c->by_seed.at(2), 0.2, 1e-12);
  EXPECT_EQ(c->by_seed.size(), 2u);
  EXPECT_NEAR(c->difference, 0.15, 1e-12);
  // t of one degree: wide, and so within noise; over documents all differ alike.
  EXPECT_EQ(c->verdict, Verdict::kWithinNoise);
  EXPECT_NEAR(c->over_documents->low, 0.15, 1e-12);
  EXPECT_NEAR(c->over_documents->high, 0.15, 1e-12);
}

TEST(Comparison, OfOneSeedIsDecidedOverDocuments) {
  const std::optional<Comparison> c =
      compare({{1, column_of({1.2, 9.1, 4.4})}}, {{1, column_of({1, 9, 4})}});
  EXPECT_FALSE(c->over_seeds);
  EXPECT_EQ(c->verdict, Verdict::kWorse);
  EXPECT_GT(c->over_documents->low, 0);
}

TEST(Comparison, SaysWhatItCannotTell) {
  EXPECT_EQ(compare({{1, column_of({1})}}, {{1, column_of({2})}})->verdict, Verdict::kUnknown);
  EXPECT_EQ(compare({{1, column_of({1, 2})}}, {{1, column_of({1, 2})}})->verdict, Verdict::kEqual);
  EXPECT_FALSE(compare({{1, column_of({1})}}, {{2, column_of({1})}}));
}

}  // namespace
}  // namespace emo

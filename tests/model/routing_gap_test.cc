#include "model/routing_gap.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "model/host/router.h"

namespace emo {
namespace {

// Two documents of one token each; scores are proportional to the numbers given.
RouterInput input_of(const std::vector<float>& first, const std::vector<float>& second,
                     const std::vector<int32_t>& pool_sizes, int64_t top_k) {
  RouterInput input;
  input.logits = at::stack({at::tensor(first), at::tensor(second)}).log();
  input.spans = make_spans(tensor_of({0, 1, 2}), 2, at::kCPU);
  input.pool_sizes = tensor_of(pool_sizes);
  input.top_k = top_k;
  return input;
}

RoutingGap gap_of(RouterInput input, const RoutingContract& contract) {
  input.pool = contract.pool;
  Routing routing;
  route(input, contract, &routing);
  return routing_gap(input, routing.pools);
}

TEST(RoutingGap, IsTheSmallestOfAllChoices) {
  RoutingContract contract;
  contract.pool.min = 2;
  // Pools: 8 against 4, half; and 10 against 9. Experts in them: 16 against 8; and 12 against 10.
  const RoutingGap gap = gap_of(input_of({8, 16, 4, 1}, {12, 9, 10, 1}, {2, 2}, 1), contract);
  EXPECT_NEAR(gap.pools, 0.1, 1e-6);
  EXPECT_NEAR(gap.experts, 1 - 10.0 / 12, 1e-6);
  EXPECT_NEAR(gap.choice(), 0.1, 1e-6);
  EXPECT_EQ(gap.order, RoutingGap::kNone);  // one expert has none
}

TEST(RoutingGap, OfTheOrderIsApart) {
  RoutingContract contract;
  contract.pool.kind = PoolPolicy::Kind::kNone;
  const RoutingGap gap = gap_of(input_of({8, 8, 4, 1}, {16, 8, 2, 1}, {4, 4}, 2), contract);
  EXPECT_EQ(gap.order, 0);
  EXPECT_NEAR(gap.experts, 0.5, 1e-6);
  EXPECT_EQ(gap.pools, RoutingGap::kNone);  // there are none
}

TEST(RoutingGap, OfBiasedChoicesIsThatOfTheirSums) {
  RoutingContract contract;
  contract.pool.kind = PoolPolicy::Kind::kNone;
  // Scores 0.5, 0.3, 0.1, 0.1; with the biases 0, 0.3, 0.5, 0.1.
  RouterInput input = input_of({5, 3, 1, 1}, {5, 3, 1, 1}, {4, 4}, 1);
  input.bias = at::tensor({-0.5f, 0.0f, 0.4f, 0.0f});
  RoutingGap gap = gap_of(input, contract);
  EXPECT_NEAR(gap.experts, 0.4, 1e-6);
  EXPECT_EQ(gap.order, RoutingGap::kNone);
  input.top_k = 2;
  gap = gap_of(input, contract);
  EXPECT_NEAR(gap.experts, 2.0 / 3, 1e-6);
  EXPECT_NEAR(gap.order, 0.4, 1e-6);
}

TEST(RoutingGap, WhereAllAreTakenThereIsNoChoice) {
  RoutingContract contract;
  contract.pool.min = 2;
  const RoutingGap gap = gap_of(input_of({8, 16, 4, 1}, {12, 9, 10, 1}, {4, 4}, 4), contract);
  EXPECT_EQ(gap.choice(), RoutingGap::kNone);
}

TEST(RoutingGap, PoolsThatWereGivenAreNoChoice) {
  RoutingContract contract;
  contract.pool.min = 2;
  RouterInput input = input_of({8, 16, 4, 1}, {12, 9, 10, 1}, {2, 2}, 1);
  input.subset.pools = {0, 0, 0, 0, 1, 1, 0, 0};  // of the second document
  const RoutingGap gap = gap_of(input, contract);
  EXPECT_NEAR(gap.pools, 0.5, 1e-6);             // the first's
  EXPECT_NEAR(gap.experts, 1 - 9.0 / 12, 1e-6);  // in the pool that was given
}

TEST(RoutingGap, OfTopPPoolsIsHowFarTheyAreFromEnding) {
  RoutingContract contract;
  contract.pool.kind = PoolPolicy::Kind::kTopP;
  contract.pool.top_p = 0.8001;
  contract.pool.min = 1;
  // 0.5 + 0.3 = 0.8 do not reach it.
  const RoutingGap gap = gap_of(input_of({5, 3, 1, 1}, {5, 3, 1, 1}, {4, 4}, 1), contract);
  EXPECT_NEAR(gap.pools, 0, 1e-6);  // the third and the fourth are alike
  contract.pool.top_p = 0.7999;
  EXPECT_NEAR(gap_of(input_of({5, 3, 1, 1}, {5, 3, 1, 1}, {4, 4}, 1), contract).pools, 1e-4, 1e-6);
}

}  // namespace
}  // namespace emo

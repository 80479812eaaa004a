#include "eval/experts/expert_placement.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace emo {
namespace {

// Tokens of topics; a topic's experts are e with e % topics == topic, so no two are neighbours.
at::Tensor choices_by_topic(int64_t tokens, int64_t experts, int64_t topics, int64_t K) {
  std::mt19937_64 random(5);
  at::Tensor choices = at::empty({tokens, K}, at::kInt);
  auto* chosen = choices.mutable_data_ptr<int32_t>();
  for (int64_t t = 0; t < tokens; ++t) {
    std::vector<int32_t> of_topic;
    for (int64_t e = t % topics; e < experts; e += topics)
      of_topic.push_back(static_cast<int32_t>(e));
    std::shuffle(of_topic.begin(), of_topic.end(), random);
    std::copy_n(of_topic.begin(), K, chosen + t * K);
  }
  return choices;
}

TEST(ExpertPlacement, FindsWhatBelongsTogether) {
  const at::Tensor choices = choices_by_topic(2000, 32, 4, 5);
  ExpertPairs pairs = make_expert_pairs(32);
  add_choices(choices, 0, 2000, &pairs);
  PlacementCost before, after;
  add_cost({32, 4, {}}, choices, 0, 2000, &before);
  const std::vector<int32_t> order = group_experts(pairs, 4, 1);
  ASSERT_TRUE(is_permutation(order, 32));
  add_cost({32, 4, order}, choices, 0, 2000, &after);
  EXPECT_GT(before.copies_per_token(), 2.0);
  EXPECT_DOUBLE_EQ(after.copies_per_token(), 0.75);  // one rank of four, here or elsewhere
  EXPECT_LT(after.load_max_over_mean(), 1.1);
  for (int64_t e = 0; e < 32; ++e) EXPECT_EQ(order[e] % 4, order[e / 8 * 8] % 4);
}

TEST(ExpertPlacement, KeepsTheLoadEvenOnUnevenRanks) {
  // Few experts do most of the work, and all of them together: grouping them would gain most.
  std::mt19937_64 random(7);
  at::Tensor choices = at::empty({3000, 2}, at::kInt);
  auto* chosen = choices.mutable_data_ptr<int32_t>();
  for (int64_t t = 0; t < 3000; ++t) {
    const uint64_t range = t % 3 == 0 ? 15 : 6;
    chosen[2 * t] = static_cast<int32_t>(random() % range);
    chosen[2 * t + 1] = static_cast<int32_t>((static_cast<uint64_t>(chosen[2 * t]) + 1) % range);
  }
  ExpertPairs pairs = make_expert_pairs(15);
  add_choices(choices, 0, 3000, &pairs);
  PlacementCost by_number, grouped;
  add_cost({15, 4, {}}, choices, 0, 3000, &by_number);
  const std::vector<int32_t> order = group_experts(pairs, 4, 1);
  ASSERT_TRUE(is_permutation(order, 15));
  add_cost({15, 4, order}, choices, 0, 3000, &grouped);
  EXPECT_LE(grouped.load_max_over_mean(), std::max(1.06, by_number.load_max_over_mean()));
}

TEST(ExpertPlacement, CountsPairsAndCopiesAsALoopDoes) {
  const at::Tensor choices = at::tensor({0, 3, 1, -1, 2, 3}, at::kInt).view({3, 2});
  ExpertPairs pairs = make_expert_pairs(4);
  add_choices(choices, 0, 3, &pairs);
  EXPECT_EQ(pairs.at(0, 3), 1);
  EXPECT_EQ(pairs.at(3, 2), 1);
  EXPECT_EQ(pairs.at(3, 3), 2);
  EXPECT_EQ(pairs.at(1, 1), 1);
  EXPECT_EQ(pairs.at(0, 1), 0);
  PlacementCost cost;
  add_cost({4, 2, {0, 3, 1, 2}}, choices, 0, 3, &cost);  // {0, 3} and {1, 2}
  EXPECT_EQ(cost.ranks, 1 + 1 + 2);
  EXPECT_DOUBLE_EQ(cost.copies_per_token(), 4.0 / 3 / 2);
  EXPECT_THAT(cost.load, ::testing::ElementsAre(3, 2));
}

TEST(ExpertPlacement, IsAFunctionOfItsArguments) {
  const at::Tensor choices = choices_by_topic(500, 31, 3, 4);
  ExpertPairs pairs = make_expert_pairs(31);
  add_choices(choices, 0, 500, &pairs);
  EXPECT_EQ(group_experts(pairs, 8, 3), group_experts(pairs, 8, 3));
}

}  // namespace
}  // namespace emo

#include "parallel/expert_exchange.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "tests/parallel/test_world.h"

namespace emo {
namespace {

// Random choices of K of E experts for T tokens, with weights from 1 to `most`; some slots unused.
void random_choices(int64_t T, int64_t E, int64_t K, uint64_t most, uint64_t seed,
                    at::Tensor* experts, at::Tensor* weights) {
  std::mt19937_64 random(seed);
  *experts = at::full({T, K}, -1, at::kInt);
  *weights = at::zeros({T, K});
  for (int64_t t = 0; t < T; ++t) {
    std::vector<int32_t> order(E);
    for (int64_t e = 0; e < E; ++e) order[e] = static_cast<int32_t>(e);
    std::shuffle(order.begin(), order.end(), random);
    const int64_t used = random() % 5 == 0 ? K - 1 : K;
    for (int64_t k = 0; k < used; ++k) {
      (*experts)[t][k] = order[k];
      (*weights)[t][k] = static_cast<float>(1 + random() % most);
    }
  }
}

struct ExchangeCase {
  ExchangeMode mode;
  at::ScalarType type;  // of the rows
};
class ExchangeTest : public ::testing::TestWithParam<ExchangeCase> {};

// Expert e multiplies its row by a number f(e). After dispatch, experts and return, each token must
// hold sum_k w_k f(e_k) x, whatever rank the experts are on. Whole numbers: exact, with bf16 small
// ones.
TEST_P(ExchangeTest, TokensMeetTheirExpertsAndComeBack) {
  Communicator& world = test_world();
  const auto [mode, type] = GetParam();
  const bool small = type == at::kBFloat16;
  const auto factor = [small](int64_t e) {
    return static_cast<float>(small ? int64_t{1} << e % 3 : e + 1);
  };
  for (const int64_t E : {5, 15, 127}) {
    for (const int64_t base : {0, 3, 40}) {
      ExpertPlacement placement{E, world.size(), {}};
      if (base == 40) {  // held in another order
        placement.order.resize(E);
        std::iota(placement.order.rbegin(), placement.order.rend(), 0);
      }
      const int64_t T = base + world.rank() % 2, D = 3, K = 3;  // uneven rows
      at::Tensor experts, weights;
      random_choices(T, E, K, small ? 1 : 8, 100 + static_cast<uint64_t>(world.rank()), &experts,
                     &weights);
      const at::Tensor x = at::randint(-9, 9, {T, D}).to(type);
      ExchangePlan plan;
      ExchangeBuffers buffers;
      plan_exchange(world, placement, experts, weights, mode, &plan, &buffers);
      at::Tensor arrived;
      send_rows(world, plan, x, &arrived, &buffers).wait();
      EXPECT_TRUE(
          on_all_ranks(arrived.scalar_type() == type && arrived.size(0) == plan.arrived_rows()));
      at::Tensor y = at::ones({T, D});
      at::Tensor results = at::zeros({plan.arrived_rows(), D}, type);
      at::Tensor values = at::zeros({plan.pairs});
      bool sorted = true;
      for (int64_t e = 0; e < placement.count(world.rank()); ++e) {
        for (int64_t p = plan.expert_begin[e]; p < plan.expert_begin[e + 1]; ++p) {
          const int64_t expert = placement.expert_at(placement.first(world.rank()) + e);
          const float number = factor(expert);
          const int32_t row = plan.row_of_pair[p];
          const float weight = plan.weight_of_pair[p] * number;
          if (row < plan.own_rows) {
            const int32_t token = plan.token_of_sent_row[row];
            y[token] += weight * x[token].to(at::kFloat);
          } else {
            results[row - plan.own_rows] += weight * arrived[row - plan.own_rows];
          }
          values[p] = static_cast<float>(expert + 1);
          sorted = sorted && (p == plan.expert_begin[e] ||
                              plan.arrival_of_pair[p] > plan.arrival_of_pair[p - 1]);
        }
      }
      EXPECT_TRUE(on_all_ranks(sorted));
      return_rows(world, plan, results, &buffers).wait();
      add_returned(plan, y, buffers);
      at::Tensor slots = at::full({T, K}, -1.0f);
      return_pairs(world, plan, values, slots, &buffers);
      at::Tensor expected = at::ones({T, D});
      for (int64_t t = 0; t < T; ++t) {
        for (int64_t k = 0; k < K; ++k) {
          const int32_t e = experts[t][k].item<int32_t>();
          if (e >= 0) expected[t] += weights[t][k] * factor(e) * x[t].to(at::kFloat);
        }
      }
      const at::Tensor wanted_slots =
          at::where(experts.ge(0), experts.to(at::kFloat) + 1, at::full({T, K}, -1.0f));
      EXPECT_TRUE(on_all_ranks(at::equal(y, expected))) << E << " experts, " << T << " tokens";
      EXPECT_TRUE(on_all_ranks(at::equal(slots, wanted_slots)));

      double sent = 0;  // rows there and back, what each pair is, and its gradient back
      for (int64_t rank = 0; rank < world.size(); ++rank) {
        sent += static_cast<double>((plan.send_rows[rank] + plan.receive_rows[rank]) * D *
                                        static_cast<int64_t>(x.element_size()) +
                                    plan.send_pairs[rank] * 12 + plan.receive_pairs[rank] * 4);
      }
      EXPECT_TRUE(on_all_ranks(buffers.counters.bytes == sent));
      EXPECT_TRUE(on_all_ranks(buffers.counters.pairs == static_cast<double>(plan.pairs)));
      EXPECT_TRUE(on_all_ranks((buffers.counters.waited > 0) == (world.size() > 1)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Both, ExchangeTest,
                         ::testing::Values(ExchangeCase{ExchangeMode::kOncePerRank, at::kFloat},
                                           ExchangeCase{ExchangeMode::kOncePerExpert, at::kFloat},
                                           ExchangeCase{ExchangeMode::kOncePerRank, at::kBFloat16},
                                           ExchangeCase{ExchangeMode::kOncePerExpert,
                                                        at::kBFloat16}));

TEST(Exchange, ATokenTravelsOncePerRank) {
  Communicator& world = test_world();
  const ExpertPlacement placement{8, world.size(), {}};
  const int64_t T = 10, K = 8;  // every token wants every expert
  const at::Tensor experts = at::arange(8, at::kInt).repeat({T, 1});
  ExchangePlan once, naive;
  ExchangeBuffers buffers;
  plan_exchange(world, placement, experts, at::ones({T, K}), ExchangeMode::kOncePerRank, &once,
                &buffers);
  plan_exchange(world, placement, experts, at::ones({T, K}), ExchangeMode::kOncePerExpert, &naive,
                &buffers);
  EXPECT_TRUE(on_all_ranks(once.token_of_sent_row.size() == static_cast<size_t>(T * world.size())));
  EXPECT_TRUE(on_all_ranks(naive.token_of_sent_row.size() == static_cast<size_t>(T * K)));
}

TEST(Placement, DealsExpertsAsEvenlyAsTheyGo) {
  const ExpertPlacement placement{127, 8, {}};
  EXPECT_EQ(placement.count(0), 16);
  EXPECT_EQ(placement.count(6), 16);
  EXPECT_EQ(placement.count(7), 15);
  for (int64_t e = 0; e < 127; ++e) {
    const int64_t owner = placement.owner(e);
    EXPECT_TRUE(placement.first(owner) <= e && e < placement.first(owner + 1));
  }
}

}  // namespace
}  // namespace emo

// Which experts should live on the same rank: those that tokens choose together, so that a token
// has to travel to fewer ranks.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "parallel/expert_exchange.h"

namespace emo {

// How often experts of one layer were chosen by the same token, [E, E] row by row; on the diagonal
// how often each was chosen.
struct ExpertPairs {
  int64_t experts = 0;  // E
  std::vector<double> counts;
  double at(int64_t a, int64_t b) const { return counts[a * experts + b]; }
};

ExpertPairs make_expert_pairs(int64_t experts);

// Counts tokens [begin, end) of choices i32 [T, K], numbers below pairs->experts; -1 is no expert.
void add_choices(const at::Tensor& choices, int64_t begin, int64_t end, ExpertPairs* pairs);

// An order of the experts (ExpertPlacement::order) in which the experts of each of `ranks` ranks
// are chosen together as often as a local search finds. It starts from the order by number and from
// groups that grew around experts drawn at random; then two experts change places as long as that
// gains pairs within ranks and lets no rank compute more than 1.05 times the mean, or than the
// busier of the two did before. No rank computes more than that, or than the busiest by number. A
// function of its arguments alone. REQUIRES: 1 <= ranks <= pairs.experts.
std::vector<int32_t> group_experts(const ExpertPairs& pairs, int64_t ranks, uint64_t seed);

// What a placement costs tokens with these choices.
struct PlacementCost {
  double tokens = 0;
  double ranks = 0;          // sum over tokens of the ranks that hold at least one of its experts
  std::vector<double> load;  // [P] pairs of token and expert on each rank
  // Copies of a token that travel where tokens are anywhere with equal chance.
  double copies_per_token() const;
  double load_max_over_mean() const;
};

// Adds tokens [begin, end) of choices i32 [T, K].
void add_cost(const ExpertPlacement& placement, const at::Tensor& choices, int64_t begin,
              int64_t end, PlacementCost* cost);

}  // namespace emo

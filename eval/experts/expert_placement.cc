#include "eval/experts/expert_placement.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "data/order/random_bits.h"

namespace emo {
namespace {

constexpr double kMostLoad = 1.05;  // of the mean
constexpr uint64_t kStarts = 16;

// What a rank may compute where it can be kept to: pairs.
double most_load(const ExpertPairs& pairs, int64_t ranks) {
  double sum = 0;
  for (int64_t e = 0; e < pairs.experts; ++e) sum += pairs.at(e, e);
  return kMostLoad * sum / static_cast<double>(ranks);
}

// Experts dealt to ranks, and what moving one would change.
class Grouping {
 public:
  Grouping(const ExpertPairs& pairs, const ExpertPlacement& placement)
      : pairs_(&pairs),
        ranks_(placement.ranks),
        rank_of_(pairs.experts),
        load_(ranks_, 0.0),
        together_(pairs.experts * ranks_, 0.0),
        most_load_(most_load(pairs, ranks_)) {
    for (int64_t position = 0; position < pairs.experts; ++position) {
      const int64_t e = placement.expert_at(position);
      rank_of_[e] = placement.owner(position);
      load_[rank_of_[e]] += pairs.at(e, e);
    }
    for (int64_t e = 0; e < pairs.experts; ++e) {
      for (int64_t other = 0; other < pairs.experts; ++other) {
        if (other != e) together_[e * ranks_ + rank_of_[other]] += pairs.at(e, other);
      }
    }
  }

  // Swaps each expert with its best partner until no swap gains anything.
  void improve() {
    for (bool changed = true; changed;) {
      changed = false;
      for (int64_t e = 0; e < pairs_->experts; ++e) changed = swap_best(e) || changed;
    }
  }

  double pairs_within() const {
    double sum = 0;
    for (int64_t e = 0; e < pairs_->experts; ++e) sum += together_[e * ranks_ + rank_of_[e]];
    return sum / 2;
  }

  double largest_load() const { return *std::max_element(load_.begin(), load_.end()); }

  // By rank, then by number.
  std::vector<int32_t> order() const {
    std::vector<int32_t> experts(pairs_->experts);
    std::iota(experts.begin(), experts.end(), 0);
    std::stable_sort(experts.begin(), experts.end(),
                     [&](int32_t a, int32_t b) { return rank_of_[a] < rank_of_[b]; });
    return experts;
  }

 private:
  double together(int64_t e, int64_t rank) const { return together_[e * ranks_ + rank]; }

  double gain(int64_t e, int64_t f) const {
    const int64_t a = rank_of_[e], b = rank_of_[f];
    return together(e, b) - together(e, a) + together(f, a) - together(f, b) - 2 * pairs_->at(e, f);
  }

  bool load_allows(int64_t e, int64_t f) const {
    const int64_t a = rank_of_[e], b = rank_of_[f];
    const double more = pairs_->at(f, f) - pairs_->at(e, e);  // what a gains
    return std::max(load_[a] + more, load_[b] - more) <= std::max({most_load_, load_[a], load_[b]});
  }

  bool swap_best(int64_t e) {
    int64_t best = -1;
    double most = 1e-9;
    for (int64_t f = 0; f < pairs_->experts; ++f) {
      if (rank_of_[f] == rank_of_[e] || gain(e, f) <= most || !load_allows(e, f)) continue;
      most = gain(e, f);
      best = f;
    }
    if (best < 0) return false;
    const int64_t a = rank_of_[e], b = rank_of_[best];
    move(e, b);
    move(best, a);
    return true;
  }

  void move(int64_t e, int64_t to) {
    const int64_t from = rank_of_[e];
    load_[from] -= pairs_->at(e, e);
    load_[to] += pairs_->at(e, e);
    for (int64_t other = 0; other < pairs_->experts; ++other) {
      if (other == e) continue;
      together_[other * ranks_ + from] -= pairs_->at(other, e);
      together_[other * ranks_ + to] += pairs_->at(other, e);
    }
    rank_of_[e] = to;
  }

  const ExpertPairs* pairs_;
  int64_t ranks_;
  std::vector<int64_t> rank_of_;  // [E]
  std::vector<double> load_;      // [P]
  std::vector<double> together_;  // [E, P] pairs of an expert with those of a rank
  double most_load_;
};

// Rank by rank: from an expert drawn at random, always the expert that is chosen most often with
// those already there, as long as that is not too much load; then the one with the least load.
std::vector<int32_t> grow_groups(const ExpertPairs& pairs, int64_t ranks, uint64_t seed,
                                 uint64_t start) {
  const ExpertPlacement sizes{pairs.experts, ranks, {}};
  const double limit = most_load(pairs, ranks);
  std::vector<int32_t> left(pairs.experts);
  std::iota(left.begin(), left.end(), 0);
  std::vector<int32_t> order;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    std::vector<double> together(pairs.experts, 0.0);
    double load = 0;
    for (int64_t i = 0; i < sizes.count(rank); ++i) {
      const auto better = [&](int32_t a, int32_t b) {
        const bool a_fits = load + pairs.at(a, a) <= limit;
        const bool b_fits = load + pairs.at(b, b) <= limit;
        if (a_fits != b_fits) return a_fits;
        return a_fits ? together[a] > together[b] : pairs.at(a, a) < pairs.at(b, b);
      };
      const auto first = static_cast<int64_t>(
          random_below(random_bits(seed, start, static_cast<uint64_t>(rank)), left.size()));
      const auto next =
          i == 0 ? left.begin() + first : std::min_element(left.begin(), left.end(), better);
      const int32_t e = *next;
      left.erase(next);
      order.push_back(e);
      load += pairs.at(e, e);
      for (int64_t other = 0; other < pairs.experts; ++other) together[other] += pairs.at(other, e);
    }
  }
  return order;
}

}  // namespace

ExpertPairs make_expert_pairs(int64_t experts) {
  return {experts, std::vector<double>(experts * experts, 0.0)};
}

void add_choices(const at::Tensor& choices, int64_t begin, int64_t end, ExpertPairs* pairs) {
  const int64_t K = choices.size(1);
  const auto* chosen = choices.const_data_ptr<int32_t>();
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t a = t * K; a < (t + 1) * K; ++a) {
      for (int64_t b = t * K; b < (t + 1) * K; ++b) {
        if (chosen[a] >= 0 && chosen[b] >= 0)
          pairs->counts[chosen[a] * pairs->experts + chosen[b]] += 1;
      }
    }
  }
}

std::vector<int32_t> group_experts(const ExpertPairs& pairs, int64_t ranks, uint64_t seed) {
  ExpertPlacement placement{pairs.experts, ranks, {}};
  Grouping best(pairs, placement);
  const double largest_load = std::max(best.largest_load(), most_load(pairs, ranks));
  best.improve();
  for (uint64_t start = 0; start < kStarts; ++start) {
    placement.order = grow_groups(pairs, ranks, seed, start);
    Grouping next(pairs, placement);
    next.improve();
    if (next.largest_load() <= largest_load && next.pairs_within() > best.pairs_within()) {
      best = next;
    }
  }
  return best.order();
}

double PlacementCost::copies_per_token() const {
  const auto count = static_cast<double>(load.size());
  return tokens == 0 ? 0 : ranks / tokens * (count - 1) / count;
}

double PlacementCost::load_max_over_mean() const {
  const double sum = std::accumulate(load.begin(), load.end(), 0.0);
  if (sum == 0) return 1;
  return *std::max_element(load.begin(), load.end()) * static_cast<double>(load.size()) / sum;
}

void add_cost(const ExpertPlacement& placement, const at::Tensor& choices, int64_t begin,
              int64_t end, PlacementCost* cost) {
  const int64_t K = choices.size(1);
  const auto* chosen = choices.const_data_ptr<int32_t>();
  std::vector<int64_t> rank_of(placement.experts);
  for (int64_t p = 0; p < placement.experts; ++p)
    rank_of[placement.expert_at(p)] = placement.owner(p);
  cost->load.resize(placement.ranks, 0.0);
  std::vector<int64_t> last_token(placement.ranks, -1);
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t slot = t * K; slot < (t + 1) * K; ++slot) {
      if (chosen[slot] < 0) continue;
      const int64_t rank = rank_of[chosen[slot]];
      cost->load[rank] += 1;
      if (std::exchange(last_token[rank], t) != t) cost->ranks += 1;
    }
  }
  cost->tokens += static_cast<double>(end - begin);
}

}  // namespace emo

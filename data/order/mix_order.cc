#include "data/order/mix_order.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <queue>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "data/files/sha256.h"

namespace emo {
namespace {

constexpr int64_t kPlaces = 1000000;  // of a period, before they are shortened: weights of up to
                                      // six decimals are exact

// Whole places for each source, at least one, `kPlaces` in all: the nearest to the weights, those
// with the largest remainders rounded up.
std::vector<int64_t> places_of(const std::vector<WeightedSource>& sources) {
  double largest = 0;  // by which weights are scaled, since their sum might overflow
  for (const WeightedSource& source : sources) largest = std::max(largest, source.weight);
  double sum = 0;
  for (const WeightedSource& source : sources) sum += source.weight / largest;
  std::vector<int64_t> places;
  std::vector<std::pair<double, size_t>> rest;  // what rounding down has taken, negative
  int64_t left = kPlaces;
  for (size_t i = 0; i < sources.size(); ++i) {
    const double exact = sources[i].weight / largest / sum * static_cast<double>(kPlaces);
    const double near = std::round(exact);  // weights of decimals sum to a little more or less
    const double whole = std::abs(exact - near) < 1e-6 ? near : std::floor(exact);
    places.push_back(std::max<int64_t>(1, static_cast<int64_t>(whole)));
    rest.emplace_back(whole - exact, i);
    left -= places.back();
  }
  std::sort(rest.begin(), rest.end());
  for (size_t i = 0; left > 0; ++i, --left) ++places[rest[i % rest.size()].second];
  // Sources too small for a place were given one all the same: the largest give way.
  std::priority_queue<std::pair<int64_t, size_t>> most;
  for (size_t i = 0; i < places.size(); ++i) most.emplace(places[i], i);
  for (; left < 0; ++left) {
    const size_t i = most.top().second;
    most.pop();
    most.emplace(--places[i], i);
  }
  int64_t divisor = 0;
  for (const int64_t count : places) divisor = std::gcd(divisor, count);
  for (int64_t& count : places) count /= divisor;
  return places;
}

// A source's next place: it may come from `release` on, and must by `deadline`, counted from 1.
struct NextPlace {
  int64_t release, deadline;
  uint32_t source;
};

// Of the place number x, from 0, of a source that has `count` of `period` places, among m sources:
// with d = 1 / (2m - 2), n count - x period is from d to (1 - d) period at place n.
NextPlace next_place(int64_t x, int64_t count, int64_t period, int64_t m, uint32_t source) {
  if (m == 1) return {x + 1, x + 1, source};
  const int64_t parts = 2 * m - 2;
  const int64_t from = (x * parts + 1) * period;
  const int64_t to = ((x + 1) * parts - 1) * period;
  return {(from + parts * count - 1) / (parts * count), to / (parts * count), source};
}

// The source of each place of a period, [sum of counts]: of those that may come, the one that must
// come first.
std::vector<uint32_t> assign_places(const std::vector<int64_t>& counts) {
  const int64_t period = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  const auto m = static_cast<int64_t>(counts.size());
  const auto later_release = [](const NextPlace& a, const NextPlace& b) {
    return a.release != b.release ? a.release > b.release : a.source > b.source;
  };
  const auto later_deadline = [](const NextPlace& a, const NextPlace& b) {
    return a.deadline != b.deadline ? a.deadline > b.deadline : a.source > b.source;
  };
  std::priority_queue<NextPlace, std::vector<NextPlace>, decltype(later_release)> waiting(
      later_release);
  std::priority_queue<NextPlace, std::vector<NextPlace>, decltype(later_deadline)> ready(
      later_deadline);
  std::vector<int64_t> taken(counts.size(), 0);
  for (uint32_t i = 0; i < counts.size(); ++i) waiting.push(next_place(0, counts[i], period, m, i));
  std::vector<uint32_t> sequence;
  for (int64_t place = 1; place <= period; ++place) {
    for (; !waiting.empty() && waiting.top().release <= place; waiting.pop()) {
      ready.push(waiting.top());
    }
    const uint32_t source = ready.top().source;
    ready.pop();
    sequence.push_back(source);
    waiting.push(next_place(++taken[source], counts[source], period, m, source));
  }
  return sequence;
}

uint64_t seed_of(uint64_t seed, const std::string& label) {
  return std::stoull(sha256_hex(absl::StrCat(seed, " ", label)).substr(0, 16), nullptr, 16);
}

}  // namespace

absl::StatusOr<std::unique_ptr<MixOrder>> MixOrder::create(std::vector<WeightedSource> sources,
                                                           Order order, uint64_t seed) {
  for (const WeightedSource& source : sources) {
    if (source.chunks == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("source '", source.label, "' of the mix holds no row"));
    }
  }
  if (static_cast<int64_t>(sources.size()) > kPlaces / 2) {
    return absl::InvalidArgumentError(absl::StrCat(sources.size(), " sources are too many"));
  }
  return std::unique_ptr<MixOrder>(new MixOrder(std::move(sources), order, seed));
}

MixOrder::MixOrder(std::vector<WeightedSource> sources, Order order, uint64_t seed)
    : sources_(std::move(sources)), order_(order), in_period_(places_of(sources_)) {
  for (const WeightedSource& source : sources_) seeds_.push_back(seed_of(seed, source.label));
  const std::vector<uint32_t> sequence = assign_places(in_period_);
  std::vector<uint32_t> taken(sources_.size(), 0);
  for (const uint32_t source : sequence) before_.push_back(taken[source]++);
  source_ = sequence;
}

int64_t MixOrder::chunk(int64_t index) const {
  const auto period = static_cast<int64_t>(source_.size());
  const uint32_t source = source_[index % period];
  const int64_t taken = index / period * in_period_[source] + before_[index % period];
  const WeightedSource& of = sources_[source];
  return of.first_chunk + chunk_at(taken, of.chunks, order_, seeds_[source]);
}

std::vector<SourcePosition> MixOrder::positions(int64_t index) const {
  const auto period = static_cast<int64_t>(source_.size());
  std::vector<int64_t> taken;
  for (const int64_t places : in_period_) taken.push_back(index / period * places);
  for (int64_t place = 0; place < index % period; ++place) ++taken[source_[place]];
  std::vector<SourcePosition> positions;
  for (size_t i = 0; i < sources_.size(); ++i) {
    positions.push_back({sources_[i].label, taken[i],
                         static_cast<double>(taken[i]) / static_cast<double>(sources_[i].chunks)});
  }
  return positions;
}

absl::Status MixOrder::check_epochs(int64_t sequences) const {
  std::vector<std::string> wrong;
  const std::vector<SourcePosition> ends = positions(sequences);
  for (size_t i = 0; i < sources_.size(); ++i) {
    const double most = sources_[i].max_epochs;
    if (most == 0 || ends[i].epochs <= most) continue;
    wrong.push_back(absl::StrFormat(
        "source '%s': the run takes %d sequences, %.3f epochs of its %d; max_epochs is %g",
        sources_[i].label, ends[i].sequences, ends[i].epochs, sources_[i].chunks, most));
  }
  if (wrong.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("data.mix: ", absl::StrJoin(wrong, "\n")));
}

std::vector<double> MixOrder::shares() const {
  std::vector<double> shares;
  for (const int64_t places : in_period_) {
    shares.push_back(static_cast<double>(places) / static_cast<double>(source_.size()));
  }
  return shares;
}

}  // namespace emo

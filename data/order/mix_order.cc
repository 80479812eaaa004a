#include "data/order/mix_order.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
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
  double sum = 0;
  for (const WeightedSource& source : sources) sum += source.weight;
  std::vector<int64_t> places;
  std::vector<std::pair<double, size_t>> rest;  // what rounding down has taken, negative
  int64_t left = kPlaces;
  for (size_t i = 0; i < sources.size(); ++i) {
    const double exact = sources[i].weight / sum * static_cast<double>(kPlaces);
    const double near = std::round(exact);  // weights of decimals sum to a little more or less
    const double whole = std::abs(exact - near) < 1e-6 ? near : std::floor(exact);
    places.push_back(std::max<int64_t>(1, static_cast<int64_t>(whole)));
    rest.emplace_back(whole - exact, i);
    left -= places.back();
  }
  std::sort(rest.begin(), rest.end());
  for (size_t i = 0; left > 0; ++i, --left) ++places[rest[i % rest.size()].second];
  // Sources too small for a place were given one all the same.
  for (; left < 0; ++left) --*std::max_element(places.begin(), places.end());
  int64_t divisor = 0;
  for (const int64_t count : places) divisor = std::gcd(divisor, count);
  for (int64_t& count : places) count /= divisor;
  return places;
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
  struct Place {
    uint32_t source;
    int64_t number;
  };
  std::vector<Place> places;
  for (uint32_t i = 0; i < sources_.size(); ++i) {
    for (int64_t k = 0; k < in_period_[i]; ++k) places.push_back({i, k});
  }
  // (k + 1/2) / n, compared without division.
  std::sort(places.begin(), places.end(), [this](const Place& a, const Place& b) {
    const int64_t left = (2 * a.number + 1) * in_period_[b.source];
    const int64_t right = (2 * b.number + 1) * in_period_[a.source];
    return left != right ? left < right : a.source < b.source;
  });
  for (const Place& place : places) {
    source_.push_back(place.source);
    before_.push_back(static_cast<uint32_t>(place.number));
  }
}

int64_t MixOrder::chunk(int64_t index) const {
  const auto period = static_cast<int64_t>(source_.size());
  const uint32_t source = source_[index % period];
  const int64_t taken = index / period * in_period_[source] + before_[index % period];
  const WeightedSource& of = sources_[source];
  return of.first_chunk + chunk_at(taken, of.chunks, order_, seeds_[source]);
}

int64_t MixOrder::taken(size_t source, int64_t index) const {
  const auto period = static_cast<int64_t>(source_.size());
  const auto end = source_.begin() + index % period;
  return index / period * in_period_[source] +
         std::count(source_.begin(), end, static_cast<uint32_t>(source));
}

std::vector<SourcePosition> MixOrder::positions(int64_t index) const {
  std::vector<SourcePosition> positions;
  for (size_t i = 0; i < sources_.size(); ++i) {
    const int64_t sequences = taken(i, index);
    positions.push_back({sources_[i].label, sequences,
                         static_cast<double>(sequences) / static_cast<double>(sources_[i].chunks)});
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

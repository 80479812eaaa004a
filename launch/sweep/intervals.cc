#include "launch/sweep/intervals.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "data/order/random_bits.h"

namespace emo {
namespace {

constexpr int kResamples = 2000;
constexpr double kTail = 0.025;

// P(|T| < t), by the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4.
double t_within(double t, int degrees) {
  const double n = degrees;
  const double theta = std::atan(t / std::sqrt(n));
  const double cosine = std::cos(theta);
  const bool odd = degrees % 2 == 1;
  double sum = 0;
  double term = odd ? cosine : 1;
  for (int k = odd ? 2 : 1; k < degrees; k += 2) {
    sum += term;
    term *= cosine * cosine * k / (k + 1);
  }
  if (!odd) return std::sin(theta) * sum;
  return 2 / std::numbers::pi * (theta + std::sin(theta) * sum);
}

double nats_per_token(double nats, double tokens) { return nats / tokens; }

struct Sums {
  double nats = 0;
  double tokens = 0;
};

Sums add(const DocumentSums& domain) {
  return {std::accumulate(domain.nats.begin(), domain.nats.end(), 0.0),
          std::accumulate(domain.tokens.begin(), domain.tokens.end(), 0.0)};
}

// As many documents, drawn with replacement; drawn again where none of them has tokens.
Sums draw(const DocumentSums& domain, uint64_t seed, uint64_t stream, uint64_t* counter) {
  const size_t n = domain.nats.size();
  Sums sums;
  while (sums.tokens == 0) {
    for (size_t i = 0; i < n; ++i) {
      const uint64_t chosen = random_below(random_bits(seed, stream, (*counter)++), n);
      sums.nats += domain.nats[chosen];
      sums.tokens += domain.tokens[chosen];
    }
  }
  return sums;
}

}  // namespace

double t_quantile(int degrees) {
  double low = 0;
  double high = 1000;  // above 12.7, that of one degree
  for (int i = 0; i < 200; ++i) {
    const double middle = (low + high) / 2;
    (t_within(middle, degrees) < 1 - 2 * kTail ? low : high) = middle;
  }
  return high;
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double standard_deviation(const std::vector<double>& values) {
  if (values.size() < 2) return std::nan("");
  const double middle = mean(values);
  double squares = 0;
  for (const double value : values) squares += (value - middle) * (value - middle);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

Interval interval_over_seeds(const std::vector<double>& values) {
  const double middle = mean(values);
  const double half = t_quantile(static_cast<int>(values.size()) - 1) * standard_deviation(values) /
                      std::sqrt(static_cast<double>(values.size()));
  return {middle - half, middle + half};
}

double mean_over_domains(const std::vector<DocumentSums>& domains) {
  std::vector<double> means;
  for (const DocumentSums& domain : domains) {
    const Sums sums = add(domain);
    if (sums.tokens > 0) means.push_back(nats_per_token(sums.nats, sums.tokens));
  }
  return mean(means);
}

Interval interval_over_documents(const std::vector<DocumentSums>& domains, uint64_t seed) {
  std::vector<double> means(kResamples, 0.0);
  double parts = 0;
  for (size_t d = 0; d < domains.size(); ++d) {
    if (add(domains[d]).tokens == 0) continue;
    ++parts;
    uint64_t counter = 0;
    for (double& sum : means) {
      const Sums sums = draw(domains[d], seed, d, &counter);
      sum += nats_per_token(sums.nats, sums.tokens);
    }
  }
  for (double& sum : means) sum /= parts;
  std::sort(means.begin(), means.end());
  const auto tail = static_cast<size_t>(kTail * kResamples);
  return {means[tail], means[kResamples - 1 - tail]};
}

}  // namespace emo

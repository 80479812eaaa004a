#include "eval/experts/retention_losses.h"

#include <cmath>

namespace emo {
namespace {

double loss_of(const DomainLosses& domain, size_t column, const size_t* baseline, size_t document) {
  const double loss = domain.losses[column][document];
  return baseline == nullptr ? loss : loss - domain.losses[*baseline][document];
}

}  // namespace

Estimate domain_estimate(const DomainLosses& domain, size_t column, const size_t* baseline) {
  const size_t n = domain.tokens.size();
  double loss = 0;
  double tokens = 0;
  for (size_t i = 0; i < n; ++i) {
    loss += loss_of(domain, column, baseline, i);
    tokens += domain.tokens[i];
  }
  if (tokens == 0) return {std::nan(""), std::nan("")};
  const double mean = loss / tokens;
  if (n < 2) return {mean, std::nan("")};
  double squares = 0;
  for (size_t i = 0; i < n; ++i) {
    const double off = loss_of(domain, column, baseline, i) - mean * domain.tokens[i];
    squares += off * off;
  }
  const auto documents = static_cast<double>(n);
  return {mean, std::sqrt(squares * documents / (documents - 1)) / tokens};
}

Estimate mean_estimate(const RetentionReport& report, size_t column, const size_t* baseline) {
  double sum = 0;
  double squares = 0;
  double domains = 0;
  for (const auto& [label, losses] : report.domains) {
    const Estimate domain = domain_estimate(losses, column, baseline);
    if (std::isnan(domain.mean)) continue;
    sum += domain.mean;
    squares += domain.standard_error * domain.standard_error;
    ++domains;
  }
  if (domains == 0) return {std::nan(""), std::nan("")};
  return {sum / domains, std::sqrt(squares) / domains};
}

}  // namespace emo

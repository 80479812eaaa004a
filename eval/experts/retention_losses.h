// From losses of documents to those of a domain, and of all domains: means and standard errors.
#pragma once

#include <vector>

#include "eval/experts/retention.h"

namespace emo {

// Columns of DomainLosses.
inline constexpr size_t kAllExperts = 0;
inline constexpr size_t kNoRoutedExperts = 1;
inline constexpr size_t kFirstCut = 2;

// A mean, and its standard error over documents. NaN where there is nothing to predict; the error
// also of one document.
struct Estimate {
  double mean = 0;
  double standard_error = 0;
};

// Nats per token of one column, less those of `baseline` where that is not null; each document
// weighs as many tokens as it has (a ratio of sums; its error by linearisation, Cochran 1977,
// Sampling Techniques, section 6.4).
Estimate domain_estimate(const DomainLosses& domain, size_t column,
                         const size_t* baseline = nullptr);

// The mean over domains that have something to predict, each with the same weight.
Estimate mean_estimate(const RetentionReport& report, size_t column,
                       const size_t* baseline = nullptr);

}  // namespace emo

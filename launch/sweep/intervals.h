// How sure a difference is: intervals that hold it 95 times of 100.
#pragma once

#include <cstdint>
#include <vector>

namespace emo {

struct Interval {
  double low = 0;
  double high = 0;
};

// The value that a t-distributed number of so many degrees of freedom exceeds with probability
// 0.025. REQUIRES: degrees >= 1.
double t_quantile(int degrees);

// Over seeds: mean -+ t_quantile(n - 1) standard deviations / sqrt(n) (Student 1908). REQUIRES: at
// least two values.
Interval interval_over_seeds(const std::vector<double>& values);

double mean(const std::vector<double>& values);                // NaN of none
double standard_deviation(const std::vector<double>& values);  // over n - 1; NaN of one

// A domain's documents: what each adds to a sum of nats, and to the tokens that it is divided by.
struct DocumentSums {
  std::vector<double> nats, tokens;  // [N]
};

// Mean over domains of nats per token; those without tokens have no part in it.
double mean_over_domains(const std::vector<DocumentSums>& domains);

// Over documents: as many documents of each domain are drawn again and again, with replacement,
// 2000 times by the seed, and 95 of 100 means lie inside (percentile bootstrap, Efron 1979).
Interval interval_over_documents(const std::vector<DocumentSums>& domains, uint64_t seed);

}  // namespace emo

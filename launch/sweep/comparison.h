// One arm of a sweep beside another: how much it differs, and how sure that is.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "launch/sweep/intervals.h"
#include "launch/sweep/run_results.h"

namespace emo {

// An arm's runs, by seed.
using ColumnBySeed = std::map<uint64_t, Column>;

// Of losses: better is less. kUnknown: of one seed, and no domain with two documents.
enum class Verdict { kEqual, kWithinNoise, kBetter, kWorse, kUnknown };

struct Comparison {
  double difference = 0;                    // nats per token, mean over the seeds that both have
  std::map<uint64_t, double> by_seed;       // paired: same weights at the start, same order of data
  std::optional<Interval> over_seeds;       // of two seeds or more
  std::optional<Interval> over_documents;   // of differences that are summed over seeds
  Verdict verdict = Verdict::kWithinNoise;  // by the interval over seeds, else that over documents

  const std::optional<Interval>& interval() const {
    return over_seeds ? over_seeds : over_documents;
  }
};

// Of the seeds and documents that both have; nothing where they have no seed, or no predicted
// document, in common.
std::optional<Comparison> compare(const ColumnBySeed& arm, const ColumnBySeed& baseline);

const char* verdict_name(Verdict verdict);  // "equal", "within noise", ...

}  // namespace emo

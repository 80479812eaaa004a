#include "launch/sweep/comparison.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace emo {
namespace {

constexpr uint64_t kResamplingSeed = 0;

// Ids as names: of one that stands several times each has its own.
std::vector<std::string> unique(const std::vector<std::string>& ids) {
  std::map<std::string, int> seen;
  std::vector<std::string> names;
  for (const std::string& id : ids) names.push_back(absl::StrCat(id, " ", seen[id]++));
  return names;
}

// Differences of the documents that both have, added to those of other seeds.
class PairedDocuments {
 public:
  void add(const Column& arm, const Column& baseline) {
    for (const auto& [label, domain] : arm) {
      const auto other = baseline.find(label);
      if (other == baseline.end()) continue;
      std::map<std::string, size_t> place;
      const std::vector<std::string> others = unique(other->second.ids);
      for (size_t i = 0; i < others.size(); ++i) place[others[i]] = i;
      const std::vector<std::string> ids = unique(domain.ids);
      for (size_t i = 0; i < ids.size(); ++i) {
        const auto found = place.find(ids[i]);
        if (found == place.end()) continue;
        Pair& pair = domains_[label][ids[i]];
        pair.nats += domain.sums.nats[i] - other->second.sums.nats[found->second];
        pair.tokens += domain.sums.tokens[i];
      }
    }
  }

  std::vector<DocumentSums> sums() const {
    std::vector<DocumentSums> all;
    for (const auto& [label, documents] : domains_) {
      DocumentSums& domain = all.emplace_back();
      for (const auto& [id, pair] : documents) {
        domain.nats.push_back(pair.nats);
        domain.tokens.push_back(pair.tokens);
      }
    }
    return all;
  }

 private:
  struct Pair {
    double nats = 0;
    double tokens = 0;
  };
  std::map<std::string, std::map<std::string, Pair>> domains_;  // label, id
};

bool predicts(const std::vector<DocumentSums>& domains) {
  return std::any_of(domains.begin(), domains.end(), [](const DocumentSums& domain) {
    return std::any_of(domain.tokens.begin(), domain.tokens.end(),
                       [](double tokens) { return tokens > 0; });
  });
}

bool can_be_resampled(const std::vector<DocumentSums>& domains) {
  return std::any_of(domains.begin(), domains.end(),
                     [](const DocumentSums& domain) { return domain.nats.size() > 1; });
}

bool all_zero(const std::vector<DocumentSums>& domains) {
  return std::all_of(domains.begin(), domains.end(), [](const DocumentSums& domain) {
    return std::all_of(domain.nats.begin(), domain.nats.end(), [](double n) { return n == 0; });
  });
}

Verdict verdict_of(const std::optional<Interval>& interval) {
  if (!interval || !std::isfinite(interval->low) || !std::isfinite(interval->high)) {
    return Verdict::kUnknown;
  }
  if (interval->high < 0) return Verdict::kBetter;
  if (interval->low > 0) return Verdict::kWorse;
  return Verdict::kWithinNoise;
}

}  // namespace

std::optional<Comparison> compare(const ColumnBySeed& arm, const ColumnBySeed& baseline) {
  Comparison comparison;
  PairedDocuments over_all_seeds;
  bool equal = true;
  std::vector<double> differences;
  for (const auto& [seed, column] : arm) {
    const auto other = baseline.find(seed);
    if (other == baseline.end()) continue;
    PairedDocuments documents;
    documents.add(column, other->second);
    const std::vector<DocumentSums> sums = documents.sums();
    if (!predicts(sums)) continue;
    equal = equal && all_zero(sums);
    differences.push_back(mean_over_domains(sums));
    comparison.by_seed[seed] = differences.back();
    over_all_seeds.add(column, other->second);
  }
  if (differences.empty()) return std::nullopt;
  comparison.difference = mean(differences);
  if (differences.size() > 1) comparison.over_seeds = interval_over_seeds(differences);
  const std::vector<DocumentSums> documents = over_all_seeds.sums();
  if (can_be_resampled(documents)) {
    comparison.over_documents = interval_over_documents(documents, kResamplingSeed);
  }
  comparison.verdict = equal ? Verdict::kEqual : verdict_of(comparison.interval());
  return comparison;
}

const char* verdict_name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kEqual:
      return "equal";
    case Verdict::kWithinNoise:
      return "within noise";
    case Verdict::kBetter:
      return "better";
    case Verdict::kWorse:
      return "worse";
    case Verdict::kUnknown:
      return "not known";
  }
  return "";
}

}  // namespace emo

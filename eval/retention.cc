#include "eval/retention.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/progress.h"
#include "eval/expert_ranking.h"
#include "eval/perplexity.h"
#include "train/expert_subset.h"

namespace emo {
namespace {

std::string fraction_name(double fraction) { return absl::StrCat(fraction); }

std::vector<int64_t> kept_in_each(const ModelConfig& config, double fraction) {
  return std::vector<int64_t>(config.n_layers, experts_of_fraction(config, fraction));
}

// One way of cutting: its name, and the experts it keeps.
struct Cut {
  std::string name;
  std::vector<std::vector<int64_t>> kept;
};

std::vector<Cut> cuts_of(const ModelConfig& config, const std::vector<std::vector<double>>& scores,
                         const RetentionOptions& options, uint64_t random_seed) {
  std::vector<Cut> cuts;
  for (const double fraction : options.fractions) {
    cuts.push_back(
        {fraction_name(fraction), keep_largest(config, scores, kept_in_each(config, fraction))});
  }
  const double fraction = options.fractions.front();
  cuts.push_back(
      {"random_" + fraction_name(fraction),
       keep_largest(config, random_scores(config, random_seed), kept_in_each(config, fraction))});
  return cuts;
}

OrderedJson numbers_json(const Retention& r) {
  OrderedJson increase = OrderedJson::object();
  OrderedJson increase_full_weights = OrderedJson::object();
  for (const auto& [name, loss] : r.cut) increase[name] = loss - r.full;
  for (const auto& [name, loss] : r.cut_full_weights) increase_full_weights[name] = loss - r.full;
  return {{"full", r.full},
          {"increase", increase},
          {"increase_full_weights", increase_full_weights},
          {"no_routed_experts", r.no_routed_experts}};
}

Retention mean_of(const std::map<std::string, Retention>& domains) {
  Retention mean;
  const auto n = static_cast<double>(domains.size());
  for (const auto& [label, r] : domains) {
    mean.full += r.full / n;
    mean.no_routed_experts += r.no_routed_experts / n;
    for (const auto& [name, loss] : r.cut) mean.cut[name] += loss / n;
    for (const auto& [name, loss] : r.cut_full_weights) mean.cut_full_weights[name] += loss / n;
  }
  return mean;
}

std::string table_row(const std::string& label, const Retention& r) {
  std::string row = absl::StrFormat("%-26s %7.3f", label, r.full);
  for (const auto* cuts : {&r.cut, &r.cut_full_weights}) {
    for (const auto& [name, loss] : *cuts)
      absl::StrAppend(&row, absl::StrFormat(" %+12.3f", loss - r.full));
  }
  return row + absl::StrFormat(" %+10.3f\n", r.no_routed_experts - r.full);
}

}  // namespace

absl::StatusOr<RetentionReport> measure_retention(const OpenedModel& model, const Mesh& mesh,
                                                  const TokenDataset& calibration,
                                                  const TokenDataset& test,
                                                  const RetentionOptions& options) {
  const ModelConfig& config = model.description.config;
  if (config.moe_layers() == 0)
    return absl::InvalidArgumentError(model.folder + ": a dense model has no experts to cut");
  for (const double fraction : options.fractions) {
    absl::Status status = check_keep(config, experts_of_fraction(config, fraction));
    if (!status.ok()) return status;
  }
  RetentionReport report;
  const std::vector<std::string>& labels = test.info().sources;
  const auto passes = static_cast<int64_t>(2 + 2 * (options.fractions.size() + 1));
  Progress progress("retention", static_cast<int64_t>(labels.size()) * passes, "passes",
                    options.show_progress && mesh.is_first());
  int64_t done = 0;
  PassMemory memory;
  for (size_t i = 0; i < labels.size(); ++i) {
    const absl::StatusOr<int32_t> source = find_label(calibration, labels[i]);
    if (!source.ok()) {
      if (mesh.is_first()) {
        std::fprintf(stderr, "emo: warning: %s is not evaluated: no calibration documents\n",
                     labels[i].c_str());
      }
      continue;
    }
    const absl::StatusOr<ExpertUsage> usage =
        usage_of_label(model, mesh, calibration, *source, &memory);
    if (!usage.ok()) return usage.status();
    const ExpertNumbers scores = router_scores(*usage);

    EvalOptions eval;
    eval.sequence_length = model.description.max_positions;
    eval.documents.sources = {static_cast<int32_t>(i)};
    eval.pool.kind = PoolPolicy::Kind::kNone;
    absl::Status status;
    const auto loss = [&](std::vector<ExpertSubset> subsets, bool routed_off) {
      eval.subsets = std::move(subsets);
      eval.routed_off = routed_off;
      absl::StatusOr<EvalResult> result = evaluate(*model.model, mesh, test, eval, &memory);
      progress.update(++done, labels[i]);
      status.Update(result.status());
      return result.ok() ? result->sources[i].mean() : 0.0;
    };
    Retention r;
    r.full = loss({}, false);
    for (const Cut& cut : cuts_of(config, scores, options, options.seed * 1000 + i)) {
      r.cut[cut.name] = loss(to_subsets(config, cut.kept, /*full_weights=*/false), false);
      r.cut_full_weights[cut.name] =
          loss(to_subsets(config, cut.kept, /*full_weights=*/true), false);
    }
    r.no_routed_experts = loss({}, true);
    if (!status.ok()) return status;
    if (std::isfinite(r.full)) report.domains[labels[i]] = r;  // else no token was predicted
  }
  if (report.domains.empty()) {
    return absl::InvalidArgumentError("calibration and test data have no label in common");
  }
  report.mean = mean_of(report.domains);
  return report;
}

OrderedJson to_json(const RetentionReport& report) {
  OrderedJson json = numbers_json(report.mean);
  json["domains"] = OrderedJson::object();
  for (const auto& [label, r] : report.domains) json["domains"][label] = numbers_json(r);
  return json;
}

std::string to_table(const std::vector<std::pair<std::string, RetentionReport>>& reports) {
  std::string table =
      "Test loss in nats per token with all experts, and its increase when only some are kept.\n"
      "'full w.': the kept experts keep the weights that they have in the full model.\n\n";
  for (const auto& [name, report] : reports) {
    absl::StrAppend(&table, absl::StrFormat("%-26s %7s", name, "full"));
    for (const auto& [cut, loss] : report.mean.cut)
      absl::StrAppend(&table, absl::StrFormat(" %12s", cut));
    for (const auto& [cut, loss] : report.mean.cut_full_weights) {
      absl::StrAppend(
          &table,
          absl::StrFormat(" %12s", (cut.rfind("random_", 0) == 0 ? "rnd" : cut) + " full w."));
    }
    absl::StrAppend(&table, absl::StrFormat(" %10s\n", "no routed"));
    for (const auto& [label, r] : report.domains)
      absl::StrAppend(&table, table_row("  " + label, r));
    absl::StrAppend(&table, table_row("  mean over domains", report.mean), "\n");
  }
  return table;
}

}  // namespace emo

#include "launch/sweep/sweep_summary.h"

#include "absl/strings/str_cat.h"

namespace emo {
namespace {

// A cut without what was measured of it.
OrderedJson properties_of(const Json& cut) {
  OrderedJson properties = OrderedJson::object();
  for (const char* key : {"method", "keep", "experts", "documents", "calibrated_on", "weights"}) {
    properties[key] = cut.value(key, Json());
  }
  return properties;
}

bool is_main_cut(const OrderedJson& properties, const std::string& method) {
  return properties["method"] == method && properties["documents"] == "all" &&
         properties["calibrated_on"] == "own" && properties["weights"] == "kept";
}

// The done runs of an arm, by seed.
using ResultsBySeed = std::map<uint64_t, const RunResult*>;

ResultsBySeed results_of(const std::string& arm, const std::vector<SweepRun>& runs,
                         const std::vector<RunResult>& results) {
  ResultsBySeed found;
  for (size_t i = 0; i < runs.size(); ++i) {
    if (runs[i].arm->name == arm && results[i].state == RunResult::State::kDone) {
      found[runs[i].seed] = &results[i];
    }
  }
  return found;
}

ColumnBySeed full_columns(const ResultsBySeed& results) {
  ColumnBySeed columns;
  for (const auto& [seed, result] : results) columns[seed] = full_column(*result);
  return columns;
}

ColumnBySeed cut_columns(const ResultsBySeed& results, size_t cut, CutColumn which) {
  ColumnBySeed columns;
  for (const auto& [seed, result] : results) {
    if (!result->retention.is_null()) columns[seed] = cut_column(*result, cut, which);
  }
  return columns;
}

BySeed means_of(const ColumnBySeed& columns) {
  BySeed means;
  for (const auto& [seed, column] : columns) means[seed] = mean_of(column);
  return means;
}

// The mean of a cost over runs that have it.
std::optional<double> mean_cost(const ResultsBySeed& results,
                                std::optional<double> RunCost::*which) {
  std::vector<double> values;
  for (const auto& [seed, result] : results) {
    if (result->cost.*which) values.push_back(*(result->cost.*which));
  }
  if (values.empty()) return std::nullopt;
  return mean(values);
}

RunCost mean_costs(const ResultsBySeed& results) {
  RunCost cost;
  for (std::optional<double> RunCost::*which :
       {&RunCost::tokens_per_second, &RunCost::imbalance, &RunCost::copies, &RunCost::copies_placed,
        &RunCost::training_seconds, &RunCost::measuring_seconds, &RunCost::peak_memory_bytes}) {
    cost.*which = mean_cost(results, which);
  }
  return cost;
}

std::map<std::string, TaskSummary> summarise_tasks(const ResultsBySeed& results) {
  std::map<std::string, TaskSummary> tasks;
  for (const auto& [seed, result] : results) {
    const Json answers = result->eval.value("tasks", Json::object());
    for (const auto& [name, task] : answers.items()) {
      tasks[name].metric = task.value("metric", "");
      if (task["value"].is_number()) tasks[name].value[seed] = task["value"].get<double>();
    }
  }
  return tasks;
}

std::vector<CutSummary> summarise_cuts(const SweepConfig& sweep, const ResultsBySeed& results,
                                       const ResultsBySeed& baseline, bool compares) {
  std::vector<CutSummary> cuts;
  if (results.empty()) return cuts;
  const Json& first = results.begin()->second->retention;
  if (first.is_null()) return cuts;
  for (size_t i = 0; i < first["cuts"].size(); ++i) {
    CutSummary cut;
    cut.properties = properties_of(first["cuts"][i]);
    cut.is_main = is_main_cut(cut.properties, sweep.measure.methods.front());
    const ColumnBySeed increases = cut_columns(results, i, CutColumn::kIncrease);
    const ColumnBySeed losses = cut_columns(results, i, CutColumn::kLoss);
    cut.increase = means_of(increases);
    cut.loss = means_of(losses);
    if (compares) {
      cut.increase_against = compare(increases, cut_columns(baseline, i, CutColumn::kIncrease));
      cut.loss_against = compare(losses, cut_columns(baseline, i, CutColumn::kLoss));
    }
    cuts.push_back(std::move(cut));
  }
  return cuts;
}

}  // namespace

std::vector<double> values_of(const BySeed& by_seed) {
  std::vector<double> values;
  for (const auto& [seed, value] : by_seed) values.push_back(value);
  return values;
}

std::vector<ArmSummary> summarise(const SweepConfig& sweep, const std::vector<SweepRun>& runs,
                                  const std::vector<RunResult>& results) {
  std::vector<ArmSummary> arms;
  const ResultsBySeed baseline = results_of(sweep.baseline, runs, results);
  const ColumnBySeed baseline_full = full_columns(baseline);
  for (const SweepArm& arm : sweep.arms) {
    const ResultsBySeed own = results_of(arm.name, runs, results);
    const bool compares = arm.name != sweep.baseline;
    const ColumnBySeed full = full_columns(own);
    ArmSummary summary;
    summary.arm = &arm;
    summary.full = means_of(full);
    summary.tasks = summarise_tasks(own);
    summary.cost = mean_costs(own);
    summary.runs = arm.seeds.size();
    if (compares) summary.full_against = compare(full, baseline_full);
    summary.cuts = summarise_cuts(sweep, own, baseline, compares);
    arms.push_back(std::move(summary));
  }
  return arms;
}

std::string keep_text(const CutSummary& cut) {
  const OrderedJson& keep = cut.properties["keep"];
  if (keep.is_number_integer()) return absl::StrCat(keep.get<int64_t>(), " experts");
  return absl::StrCat(100 * keep.get<double>(), " %");
}

}  // namespace emo

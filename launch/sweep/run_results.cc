#include "launch/sweep/run_results.h"

#include <algorithm>

#include "absl/strings/str_split.h"
#include "data/files/file_system.h"
#include "launch/sweep/run_files.h"
#include "launch/sweep/run_stages.h"

namespace emo {
namespace {

constexpr int64_t kTailBytes = 4 << 20;  // of metrics.jsonl

// Values of a metric in the last lines of a run's metrics.
std::vector<double> last_values(const std::string& folder, const std::string& metric) {
  const std::string text = tail_of(folder + "/metrics.jsonl", kTailBytes);
  std::vector<double> values;
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const Json json = Json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
    if (json.is_object() && json.contains(metric) && json[metric].is_number()) {
      values.push_back(json[metric]);
    }
  }
  values.erase(values.begin(), values.begin() + static_cast<long>(values.size() * 3 / 4));
  return values;
}

std::optional<double> median(std::vector<double> values) {
  if (values.empty()) return std::nullopt;
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

std::optional<double> number_of(const Json& json, const char* key) {
  if (!json.is_object() || !json.contains(key) || !json[key].is_number()) return std::nullopt;
  return json[key].get<double>();
}

Json read_or_null(const std::string& path) {
  absl::StatusOr<Json> json = read_json_file(path);
  return json.ok() ? *json : Json();
}

RunCost read_cost(const SweepRun& run) {
  RunCost cost;
  cost.tokens_per_second = median(last_values(run.folder, "throughput/TPS"));
  const std::vector<double> imbalance = last_values(run.folder, "train/max load imbalance");
  if (!imbalance.empty()) cost.imbalance = mean(imbalance);
  const Json copies = read_or_null(run.folder + "/" + kCopiesFile);
  cost.copies = number_of(copies, "copies_per_token_before");
  cost.copies_placed = number_of(copies, "copies_per_token_after");
  const Json spent = read_or_null(run.folder + "/" + kCostFile);
  if (!spent.is_object()) return cost;
  const Json training = spent.value("training", Json());
  cost.training_seconds = number_of(training, "seconds");
  cost.peak_memory_bytes = number_of(training, "peak_memory_bytes");
  for (const auto& [what, of_stage] : spent.items()) {
    const std::optional<double> seconds = number_of(of_stage, "seconds");
    if (what != "training" && seconds) {
      cost.measuring_seconds = cost.measuring_seconds.value_or(0) + *seconds;
    }
  }
  return cost;
}

// From lists of means to the sums that they are of.
DomainColumn column_of(const Json& ids, const Json& tokens, const Json& losses,
                       const Json* baseline) {
  DomainColumn column{ids, {{}, tokens}};
  for (size_t i = 0; i < column.sums.tokens.size(); ++i) {
    const double n = column.sums.tokens[i];  // 0: nothing is predicted, and the loss null
    double nats = 0;
    if (n > 0) nats = n * losses[i].get<double>();
    if (n > 0 && baseline != nullptr) nats -= n * (*baseline)[i].get<double>();
    column.sums.nats.push_back(nats);
  }
  return column;
}

// Whether every document that predicts something has a loss that is a number.
bool all_finite(const Json& tokens, const Json& losses) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i].get<double>() > 0 && !losses[i].is_number()) return false;
  }
  return true;
}

bool all_finite(const RunResult& result) {
  for (const auto& [label, source] : result.eval["sources"].items()) {
    const Json& documents = source["by_document"];
    if (!all_finite(documents["tokens"], documents["loss"])) return false;
  }
  if (result.retention.is_null()) return true;
  for (const auto& [label, domain] : result.retention["domains"].items()) {
    const Json& documents = domain["by_document"];
    if (!all_finite(documents["tokens"], documents["full"])) return false;
    for (const Json& cut : documents["cuts"]) {
      if (!all_finite(documents["tokens"], cut)) return false;
    }
  }
  return true;
}

}  // namespace

absl::Status write_failure(const SweepRun& run, const RunFailure& failure) {
  return write_file_durably(posix_file_system(), run.folder + "/" + kFailedFile,
                            to_text({{"exit_code", failure.exit_code}, {"what", failure.what}}));
}

absl::Status forget_failure(const SweepRun& run) {
  return posix_file_system().remove_all(run.folder + "/" + kFailedFile);
}

absl::StatusOr<RunResult> read_run_result(const SweepConfig& sweep, const SweepRun& run,
                                          const SweepData& data) {
  RunResult result;
  absl::StatusOr<std::vector<Stage>> left = stages_left(sweep, run, data);
  if (!left.ok()) return left.status();
  if (!left->empty()) {
    absl::StatusOr<Json> failed = read_json_file(run.folder + "/" + kFailedFile);
    if (absl::IsNotFound(failed.status())) return result;
    if (!failed.ok()) return failed.status();
    result.state = RunResult::State::kFailed;
    result.error = failed->value("what", "");
    return result;
  }
  absl::StatusOr<Json> losses = read_json_file(run.folder + "/" + kEvalFile, 1u << 30);
  if (!losses.ok()) return losses.status();
  result.eval = *std::move(losses);
  if (run.cut) {
    const std::string retention = run.folder + "/" + kRetentionFile;
    absl::StatusOr<Json> cuts = read_json_file(retention, 1u << 30);
    if (!cuts.ok()) return cuts.status();
    if (!cuts->contains("model")) return absl::DataLossError(retention + ": has no 'model'");
    result.retention = (*cuts)["model"];
  }
  if (!all_finite(result)) {
    result.state = RunResult::State::kFailed;
    result.error = "its loss is not a number";
    return result;
  }
  result.cost = read_cost(run);
  result.state = RunResult::State::kDone;
  return result;
}

Column full_column(const RunResult& result) {
  Column column;
  for (const auto& [label, source] : result.eval["sources"].items()) {
    const Json& documents = source["by_document"];
    column[label] = column_of(documents["ids"], documents["tokens"], documents["loss"], nullptr);
  }
  return column;
}

Column cut_column(const RunResult& result, size_t cut, CutColumn which) {
  Column column;
  for (const auto& [label, domain] : result.retention["domains"].items()) {
    const Json& documents = domain["by_document"];
    const Json* baseline = which == CutColumn::kIncrease ? &documents["full"] : nullptr;
    column[label] =
        column_of(documents["ids"], documents["tokens"], documents["cuts"][cut], baseline);
  }
  return column;
}

double mean_of(const Column& column) {
  std::vector<DocumentSums> domains;
  for (const auto& [label, domain] : column) domains.push_back(domain.sums);
  return mean_over_domains(domains);
}

}  // namespace emo

#include "launch/sweep/run_results.h"

#include <algorithm>
#include <fstream>

#include "absl/strings/str_split.h"
#include "data/files/file_system.h"

namespace emo {
namespace {

constexpr char kFailed[] = "/failed.json";
constexpr int64_t kTailBytes = 4 << 20;  // of metrics.jsonl

// Values of a metric in the last lines of a run's metrics.
std::vector<double> last_values(const std::string& folder, const std::string& metric) {
  std::ifstream file(folder + "/metrics.jsonl", std::ios::binary | std::ios::ate);
  if (!file) return {};
  const auto size = static_cast<int64_t>(file.tellg());
  std::string text(static_cast<size_t>(std::min(size, kTailBytes)), '\0');
  file.seekg(size - static_cast<int64_t>(text.size()));
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
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
  const auto middle = values.begin() + static_cast<long>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
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
  const Json copies = read_or_null(run.folder + "/copies.json");
  cost.copies = number_of(copies, "copies_per_token_before");
  cost.copies_placed = number_of(copies, "copies_per_token_after");
  const Json spent = read_or_null(run.folder + "/cost.json");
  if (!spent.is_object()) return cost;
  const Json training = spent.value("training", Json());
  cost.training_seconds = number_of(training, "seconds");
  cost.peak_memory_bytes = number_of(training, "peak_memory_bytes");
  cost.measuring_seconds = number_of(spent.value("measuring", Json()), "seconds");
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

}  // namespace

absl::Status write_failure(const SweepRun& run, const RunFailure& failure) {
  return write_file_durably(posix_file_system(), run.folder + kFailed,
                            to_text({{"exit_code", failure.exit_code}, {"what", failure.what}}));
}

absl::Status forget_failure(const SweepRun& run) {
  return posix_file_system().remove_all(run.folder + kFailed);
}

absl::StatusOr<RunResult> read_run_result(const SweepRun& run) {
  RunResult result;
  if (path_exists(run.folder + kFailed)) {
    absl::StatusOr<Json> json = read_json_file(run.folder + kFailed);
    if (!json.ok()) return json.status();
    result.state = RunResult::State::kFailed;
    result.error = json->value("what", "");
    return result;
  }
  const std::string eval = run.folder + "/eval.json";
  const std::string retention = run.folder + "/retention.json";
  if (!path_exists(eval) || (run.cut && !path_exists(retention))) return result;
  absl::StatusOr<Json> losses = read_json_file(eval, 1u << 30);
  if (!losses.ok()) return losses.status();
  result.eval = *std::move(losses);
  if (run.cut) {
    absl::StatusOr<Json> cuts = read_json_file(retention, 1u << 30);
    if (!cuts.ok()) return cuts.status();
    if (!cuts->contains("model")) return absl::DataLossError(retention + ": has no 'model'");
    result.retention = (*cuts)["model"];
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

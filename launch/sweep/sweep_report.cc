#include "launch/sweep/sweep_report.h"

#include <unistd.h>

#include <cstdio>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/files/file_lock.h"
#include "data/files/file_system.h"
#include "launch/sweep/run_stages.h"

namespace emo {
namespace {

const char* state_name(RunResult::State state) {
  switch (state) {
    case RunResult::State::kDone:
      return "done";
    case RunResult::State::kFailed:
      return "failed";
    case RunResult::State::kMissing:
      return "missing";
  }
  return "";
}

OrderedJson by_seed_json(const BySeed& by_seed) {
  OrderedJson json = OrderedJson::object();
  for (const auto& [seed, value] : by_seed) json[absl::StrCat(seed)] = value;
  return json;
}

OrderedJson spread_json(const BySeed& by_seed) {
  const std::vector<double> values = values_of(by_seed);
  OrderedJson middle;
  if (!values.empty()) middle = mean(values);
  return {{"mean", middle},
          {"standard_deviation", standard_deviation(values)},
          {"by_seed", by_seed_json(by_seed)}};
}

OrderedJson interval_json(const std::optional<Interval>& interval) {
  if (!interval) return nullptr;
  return {{"low", interval->low}, {"high", interval->high}};
}

OrderedJson comparison_json(const std::optional<Comparison>& c) {
  if (!c) return nullptr;
  return {{"difference", c->difference},
          {"by_seed", by_seed_json(c->by_seed)},
          {"over_seeds", interval_json(c->over_seeds)},
          {"over_documents", interval_json(c->over_documents)},
          {"interval", interval_json(c->interval())},
          {"decided_over", c->over_seeds       ? "seeds"
                           : c->over_documents ? "documents"
                                               : "nothing"},
          {"verdict", verdict_name(c->verdict)}};
}

OrderedJson optional_json(const std::optional<double>& value) {
  return value ? OrderedJson(*value) : OrderedJson();
}

OrderedJson cost_json(const RunCost& cost) {
  return {{"tokens_per_second", optional_json(cost.tokens_per_second)},
          {"load_imbalance", optional_json(cost.imbalance)},
          {"copies_per_token", optional_json(cost.copies)},
          {"copies_per_token_placed", optional_json(cost.copies_placed)},
          {"training_seconds", optional_json(cost.training_seconds)},
          {"measuring_seconds", optional_json(cost.measuring_seconds)},
          {"peak_memory_bytes", optional_json(cost.peak_memory_bytes)}};
}

OrderedJson arm_json(const SweepConfig& sweep, const ArmSummary& arm) {
  OrderedJson overrides = OrderedJson::object();
  for (const Override& change : arm.arm->overrides) overrides[change.key] = change.value;
  OrderedJson cuts = OrderedJson::array();
  for (const CutSummary& cut : arm.cuts) {
    OrderedJson json = cut.properties;
    json["kept"] = keep_text(cut);
    json["main"] = cut.is_main;
    json["increase"] = spread_json(cut.increase);
    json["loss"] = spread_json(cut.loss);
    json["increase_against_baseline"] = comparison_json(cut.increase_against);
    json["loss_against_baseline"] = comparison_json(cut.loss_against);
    cuts.push_back(json);
  }
  OrderedJson tasks = OrderedJson::object();
  for (const auto& [name, task] : arm.tasks) {
    tasks[name] = spread_json(task.value);
    tasks[name]["metric"] = task.metric;
  }
  return {{"name", arm.arm->name},
          {"about", arm.arm->about},
          {"overrides", overrides},
          {"seeds", arm.arm->seeds},
          {"full", spread_json(arm.full)},
          {"full_against_baseline", comparison_json(arm.full_against)},
          {"cuts", cuts},
          {"tasks", tasks},
          {"cost", cost_json(arm.cost)},
          {"sentence", sentence_of(sweep, arm)}};
}

OrderedJson run_json(const SweepRun& run, const RunResult& result) {
  OrderedJson json = {{"arm", run.arm->name},
                      {"seed", run.seed},
                      {"folder", run.folder},
                      {"state", state_name(result.state)}};
  if (!result.error.empty()) json["error"] = result.error;
  if (result.state != RunResult::State::kDone) return json;
  json["full"] = mean_of(full_column(result));
  json["eval"] = OrderedJson(result.eval);
  if (!result.retention.is_null()) json["retention"] = OrderedJson(result.retention);
  json["cost"] = cost_json(result.cost);
  return json;
}

std::string csv_text(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) absl::StrAppend(&quoted, c == '"' ? "\"\"" : std::string(1, c));
  return quoted + "\"";
}

std::string csv_number(const Json& number) {
  return number.is_number() ? absl::StrFormat("%.17g", number.get<double>()) : "";
}

// A domain's, or the mean's, rows of the cuts.
std::string cut_rows(const std::string& head, const std::string& label, const Json& numbers) {
  std::string rows;
  const std::string begin = head + csv_text(label) + ",";
  const std::string counts =
      absl::StrCat(numbers.value("documents", 0), ",", csv_number(numbers.value("tokens", Json())));
  for (const Json& cut : numbers["cuts"]) {
    const Json& calibration = cut["documents"];
    absl::StrAppend(&rows, begin, cut["method"].get<std::string>(), ",", csv_number(cut["keep"]),
                    ",", cut["experts"].get<int64_t>(), ",",
                    calibration.is_string() ? calibration.get<std::string>() : calibration.dump(),
                    ",", cut["calibrated_on"].get<std::string>(), ",",
                    cut["weights"].get<std::string>(), ",", counts, ",");
    absl::StrAppend(&rows, csv_number(cut["loss"]), ",", csv_number(cut["increase"]), ",",
                    csv_number(cut["standard_error"]), "\n");
  }
  return rows;
}

// By the script beside this program.
void write_page(const std::string& folder) {
  const Installation here = find_installation();
  const std::string script = here.scripts + "/report/sweep_page.py";
  if (here.scripts.empty() || here.python.empty() || !path_exists(script)) {
    std::fprintf(stderr,
                 "emo: the page is not written: launch/report/sweep_page.py and the Python that "
                 "launch/setup.sh makes are not beside this program's build folder; that script "
                 "writes it from %s/sweep.json\n",
                 folder.c_str());
    return;
  }
  absl::StatusOr<ChildProcess> child =
      ChildProcess::start({{here.python, script, folder}, {}, "", folder + "/page-log.txt"});
  std::optional<ChildEnd> end;
  while (child.ok() && !(end = child->poll())) ::usleep(20'000);
  if (end && end->code == 0) return;
  std::fprintf(stderr, "emo: the page is not written: %s\n",
               child.ok() ? ("see " + folder + "/page-log.txt").c_str()
                          : std::string(child.status().message()).c_str());
}

}  // namespace

OrderedJson to_json(const SweepConfig& sweep, const std::vector<SweepRun>& runs,
                    const std::vector<RunResult>& results, const std::vector<ArmSummary>& arms) {
  OrderedJson keep = OrderedJson::array();
  for (const Keep& k : sweep.measure.keep) keep.push_back(to_json(k));
  OrderedJson shared = OrderedJson::object();
  for (const Override& change : sweep.set) shared[change.key] = change.value;
  OrderedJson json = {{"sweep", sweep.path},
                      {"base", sweep.base},
                      {"folder", sweep.folder},
                      {"set", shared},
                      {"seeds", sweep.seeds},
                      {"baseline", sweep.baseline},
                      {"unit", "nats per token"},
                      {"confidence", 0.95},
                      {"measure",
                       {{"test", sweep.measure.test},
                        {"validation", sweep.measure.validation},
                        {"tasks", sweep.measure.tasks},
                        {"keep", keep},
                        {"methods", sweep.measure.methods},
                        {"documents", sweep.measure.documents},
                        {"test_documents", sweep.measure.test_documents},
                        {"other_domain", sweep.measure.other_domain},
                        {"copies_on", sweep.measure.copies_on}}},
                      {"arms", OrderedJson::array()},
                      {"runs", OrderedJson::array()}};
  for (const ArmSummary& arm : arms) json["arms"].push_back(arm_json(sweep, arm));
  for (size_t i = 0; i < runs.size(); ++i) json["runs"].push_back(run_json(runs[i], results[i]));
  return json;
}

std::string to_csv(const std::vector<SweepRun>& runs, const std::vector<RunResult>& results) {
  std::string csv =
      "arm,seed,domain,method,keep,experts,calibration_documents,calibrated_on,weights,documents,"
      "tokens,loss,increase,standard_error\n";
  for (size_t i = 0; i < runs.size(); ++i) {
    const RunResult& result = results[i];
    if (result.state != RunResult::State::kDone) continue;
    const std::string head = absl::StrCat(csv_text(runs[i].arm->name), ",", runs[i].seed, ",");
    for (const auto& [label, source] : result.eval["sources"].items()) {
      absl::StrAppend(&csv, head, csv_text(label), ",none,1,,,,,", source.value("documents", 0),
                      ",", source.value("predicted_tokens", 0), ",", csv_number(source["loss"]),
                      ",0,\n");
    }
    absl::StrAppend(&csv, head, "mean,none,1,,,,,", result.eval.value("documents", 0), ",",
                    result.eval.value("predicted_tokens", 0), ",",
                    csv_number(mean_of(full_column(result))), ",0,\n");
    if (result.retention.is_null()) continue;
    for (const auto& [label, domain] : result.retention["domains"].items()) {
      absl::StrAppend(&csv, cut_rows(head, label, domain));
    }
    absl::StrAppend(&csv, cut_rows(head, "mean", result.retention));
  }
  return csv;
}

absl::StatusOr<WrittenReport> write_report(const SweepConfig& sweep,
                                           const std::vector<SweepRun>& runs,
                                           const SweepData& data) {
  // The last two tasks of an array may end at the same time.
  absl::StatusOr<FileLock> lock =
      FileLock::take(sweep.folder + "/report.lock", FileLock::Held::kWait);
  if (!lock.ok()) return lock.status();
  std::vector<RunResult> results;
  WrittenReport report;
  for (const SweepRun& run : runs) {
    absl::StatusOr<RunResult> result = read_run_result(sweep, run, data);
    if (!result.ok()) return result.status();
    report.missing += result->state == RunResult::State::kMissing ? 1 : 0;
    results.push_back(*std::move(result));
  }
  const std::vector<ArmSummary> arms = summarise(sweep, runs, results);
  report.json = to_json(sweep, runs, results, arms);
  report.table = to_table(sweep, arms);
  absl::Status status =
      write_file_durably(posix_file_system(), sweep.folder + "/sweep.json", to_text(report.json));
  if (status.ok()) {
    status =
        write_file_durably(posix_file_system(), sweep.folder + "/sweep.csv", to_csv(runs, results));
  }
  if (!status.ok()) return status;
  write_page(sweep.folder);
  return report;
}

}  // namespace emo

#include "eval/bench/bench_data.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "eval/bench/delayed_file.h"
#include "eval/bench/measure.h"
#include "parallel/self_communicator.h"
#include "train/run_data.h"
#include "train/step/step_reader.h"

namespace emo {
namespace {

// Seconds that rows [0, rows) take, a row at a time.
absl::StatusOr<double> time_rows(const RunData& data, int64_t rows) {
  const BenchClock::time_point begin = BenchClock::now();
  for (int64_t row = 0; row < rows; ++row) {
    const absl::StatusOr<Batch> batch = load(*data.source, data.loader, {row, row + 1});
    if (!batch.ok()) return batch.status();
  }
  return seconds_since(begin);
}

int64_t sequences_of_epoch(const RunData& data) {
  return data.loader.reference != nullptr ? data.loader.reference->sequences_per_epoch()
                                          : data.source->num_chunks();
}

// Every chunk of an epoch at most once.
absl::Status cover_epoch(const RunData& data, int64_t sequences) {
  std::vector<bool> seen(static_cast<size_t>(data.source->num_chunks()));
  for (int64_t i = 0; i < sequences; ++i) {
    const absl::StatusOr<int64_t> chunk = chunk_of_sequence(*data.source, data.loader, i);
    if (!chunk.ok()) return chunk.status();
    if (seen[static_cast<size_t>(*chunk)]) {
      return absl::DataLossError(absl::StrCat("chunk ", *chunk, " stands twice in an epoch"));
    }
    seen[static_cast<size_t>(*chunk)] = true;
  }
  return absl::OkStatus();
}

// What a run of one rank waits for its rows.
absl::Status time_waiting(const RunData& data, const RunConfig& config,
                          const DataBenchOptions& options, OrderedJson* json) {
  absl::StatusOr<Mesh> mesh = make_mesh(self_communicator(), 1, 1);
  if (!mesh.ok()) return mesh.status();
  StepReader reader(data, config, *mesh, {0, options.steps, read_ahead_depth(config, 1)});
  double first = 0;
  BenchClock::time_point begin = BenchClock::now();
  for (int64_t step = 0; step < options.steps; ++step) {
    absl::StatusOr<StepBatches> rows = reader.next();
    if (!rows.ok()) return rows.status();
    if (step == 0) {
      first = reader.seconds_waited();
      begin = BenchClock::now();
    }
    std::this_thread::sleep_for(std::chrono::duration<double>(options.step_seconds));
  }
  (*json)["seconds_waited_first"] = first;
  (*json)["share_waited"] = (reader.seconds_waited() - first) / seconds_since(begin);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<OrderedJson> bench_data(const RunConfig& config, const DataBenchOptions& options) {
  const std::chrono::microseconds delay(static_cast<int64_t>(options.read_delay_ms * 1000));
  BenchClock::time_point begin = BenchClock::now();
  const absl::StatusOr<RunData> data = open_run_data(
      config, options.read_delay_ms > 0 ? opens_delayed(delay) : OpenReadable(open_readable));
  if (!data.ok()) return data.status();
  OrderedJson json = {{"chunks", data->source->num_chunks()},
                      {"seconds_to_open", seconds_since(begin)}};
  const absl::StatusOr<double> first = time_rows(*data, config.train.batch);
  if (!first.ok()) return first.status();
  json["seconds_to_first_step"] = *first;
  double fastest = std::numeric_limits<double>::infinity();
  const auto tokens = static_cast<double>(options.rows * config.data.sequence_length);
  for (int64_t pass = 0; pass < options.passes; ++pass) {
    const absl::StatusOr<double> seconds = time_rows(*data, options.rows);
    if (!seconds.ok()) return seconds.status();
    if (pass == 0) json["cold_tokens_per_second"] = tokens / *seconds;
    fastest = std::min(fastest, *seconds);
  }
  json["tokens_per_second"] = tokens / fastest;
  if (options.steps > 0) {
    const absl::Status status = time_waiting(*data, config, options, &json);
    if (!status.ok()) return status;
  }
  if (options.cover && data->loader.mix != nullptr) {
    return absl::InvalidArgumentError("--cover: a mix with weights has no epoch of its own");
  }
  if (options.cover && data->source->num_chunks() > 0) {
    const int64_t sequences = sequences_of_epoch(*data);
    begin = BenchClock::now();
    const absl::Status status = cover_epoch(*data, sequences);
    if (!status.ok()) return status;
    json["sequences_per_epoch"] = sequences;
    json["seconds_to_cover"] = seconds_since(begin);
  }
  json["resident_bytes"] = peak_memory_bytes();
  return json;
}

}  // namespace emo

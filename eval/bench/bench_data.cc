#include "eval/bench/bench_data.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "eval/bench/measure.h"
#include "train/run_data.h"

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

}  // namespace

absl::StatusOr<OrderedJson> bench_data(const RunConfig& config, const DataBenchOptions& options) {
  BenchClock::time_point begin = BenchClock::now();
  const absl::StatusOr<RunData> data = open_run_data(config);
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

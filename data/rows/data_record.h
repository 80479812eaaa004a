// What a checkpoint says of the data that its run has seen: data.json beside state.json. A run that
// goes on compares the fingerprint; the rest says what has changed, and where each source is.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/order/mix_order.h"
#include "data/rows/chunk_source.h"
#include "data/shards/data_file.h"

namespace emo {

constexpr char kDataRecordFile[] = "data.json";

struct DataRecord {
  std::string fingerprint;
  std::vector<DataFile> files;
  std::vector<SourcePosition> sources;  // of a mix with weights
};

std::string to_json(const DataRecord& record);

// NotFound where the folder has none: older versions wrote none. DataLoss where it cannot be read.
absl::StatusOr<DataRecord> read_data_record(const std::string& folder);

// The same of its text, which stands in `where`.
absl::StatusOr<DataRecord> parse_data_record(const std::string& text, const std::string& where);

// What a run that has seen `record` finds otherwise in `now`, a line each, at most a dozen; empty
// where fingerprints match.
std::vector<std::string> changes_since(const DataRecord& record, const ChunkSource& now);

}  // namespace emo

// What emo data check and emo data index find out about a run's data.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/rows/packed_rows.h"

namespace emo {

// Of one source, or of all.
struct DataCounts {
  int64_t files = 0, tokens = 0;
  int64_t rows = 0;            // of S tokens
  int64_t read = 0, ends = 0;  // tokens that were looked at, and documents that end among them
  void add(const DataCounts& other);
};

struct DataReport {
  DataCounts all;
  std::vector<std::string> sources;  // in order of first appearance
  std::map<std::string, DataCounts> by_source;
  bool sources_share_files = false;              // files and rows are then counted together only
  std::vector<double> shares;                    // of the sources of a mix with weights; else empty
  std::optional<PackingCounts> packing;          // what rows do to documents, where that is known
  std::vector<std::string> odd;                  // what cannot be read as it should, a line each
  DataCounts& source(const std::string& label);  // made where it is not there
};

void print_report(const DataReport& report);
void print_report_json(const DataReport& report);

// Of a folder of emo prepare: its index says all tokens and documents. With `hash` each shard's
// tokens are read and compared with the SHA-256 that emo prepare wrote down; those that differ, or
// cannot be read, are odd. Errors as of read_dataset_info().
absl::StatusOr<DataReport> report_of_prepared(const std::string& folder, int64_t sequence_length,
                                              bool hash);

}  // namespace emo

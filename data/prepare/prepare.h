// From files of documents to token shards (shard_writer.h), on several threads. The output does not
// depend on the number of threads.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/documents/document_reader.h"

namespace emo {

struct PrepareOptions {
  std::vector<std::string> inputs;  // files or folders
  std::string tokenizer;            // path of a tokenizer.json
  std::string output;               // folder; must not exist, or be empty
  DocumentFields fields;
  std::string eos;     // token written behind each document; "" takes the usual one
  int threads = 0;     // 0: one per core
  bool tasks = false;  // the inputs are task files (task_file.h): a document for each question
  std::string split = "train";   // tasks: questions of which split
  std::optional<int64_t> shots;  // tasks: examples before each question, else as the task says
  bool strict = false;           // a bad document ends the work; else it is counted and skipped
  int64_t tokens_per_shard = 1 << 28;  //
  bool with_ids = true;                // write the documents' ids, a line each
  bool show_progress = true;
};

struct PrepareSummary {
  struct Source {
    int64_t documents = 0, tokens = 0, bytes = 0;
  };
  std::map<std::string, Source> sources;
  Source total;
  int64_t skipped = 0;                      // bad documents
  std::vector<std::string> first_warnings;  // at most ten of them
  double seconds = 0;
};

// AlreadyExists where the output folder has files in it. DataLoss naming file and line for a
// document that cannot be encoded by a limit of ours, and with `strict` for a bad one; where no
// document is good; and for a tokenizer that is not supported. What was written goes again after an
// error. Token counts include the document ends.
absl::StatusOr<PrepareSummary> prepare(const PrepareOptions& options);

}  // namespace emo

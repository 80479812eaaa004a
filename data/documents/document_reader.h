// Documents out of files: JSON lines (.jsonl, .json, .ndjson) or plain text (anything else, one
// document a file), either of them gzipped.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace emo {

struct Document {
  std::string text;    // valid UTF-8
  std::string source;  // label: the domain that it comes from
  std::string id;
};

// A document as it stands in its file, not yet parsed: cheap to read, so that many threads can
// share the parsing.
struct RawDocument {
  std::string bytes;  // one JSON line, or a whole text file
  std::string file;
  int64_t line = 0;  // from 1; 0 for a text file
};

// "FILE:LINE", or "FILE" of a text file.
std::string place_of(const RawDocument& raw);

struct DocumentFields {
  std::string text = "text";  // the JSON field that holds the text
  std::string source;  // label for all documents; "" takes it from the input, see parse_document
};

// Reads the inputs one after another. Files of a folder come in the order of their paths. Not
// thread-safe; the documents that it gives are free of it.
class DocumentReader {
 public:
  // NotFound where an input does not exist, or a folder holds no file.
  static absl::StatusOr<DocumentReader> open(const std::vector<std::string>& inputs);
  DocumentReader(DocumentReader&&) noexcept;
  DocumentReader& operator=(DocumentReader&&) noexcept;
  ~DocumentReader();

  // The next document; false at the end. DataLoss for a damaged gzip stream, a document above 2 GiB
  // and a file without any content. REQUIRES: no call before failed or answered false.
  absl::StatusOr<bool> next(RawDocument* document);

  int64_t bytes_read() const;  // of the files as they are on disk
  int64_t bytes_total() const;

 private:
  DocumentReader();
  struct State;
  std::unique_ptr<State> state_;
};

// DataLoss naming file and line for broken JSON, a missing or wrong field, or invalid UTF-8. The
// source is `fields.source`, else the JSON field "source", else the name of the file's folder
// (text) or of the file (JSON lines). The id is the JSON field "id", else file:line.
absl::StatusOr<Document> parse_document(const RawDocument& raw, const DocumentFields& fields);

}  // namespace emo

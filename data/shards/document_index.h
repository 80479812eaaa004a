// Where the documents of a file of tokens lie: a file of records, read where they are asked for.
// None is walked through when it is opened, so a set of a billion documents opens like one of ten.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/files/readable_file.h"

namespace emo {

// What emo prepare writes for a document. Little-endian, as in memory.
struct DocumentRecord {
  uint64_t end;      // tokens of the shard up to and including this document
  uint64_t bytes;    // of its UTF-8 text
  uint32_t source;   // index in DatasetInfo::sources
  uint32_t context;  // its first tokens that are given and not to be predicted: a task's question;
                     // 0 for text
};
static_assert(sizeof(DocumentRecord) == 24);

// A document: tokens [begin, end) of its file; the rest as in its record, 0 where that has only an
// end.
struct StoredDocument {
  int64_t number, begin, end;
  uint64_t bytes;
  uint32_t source, context;
  int64_t length() const { return end - begin; }
};

// Movable. Thread-safe.
class DocumentIndex {
 public:
  enum class Records {
    kWhole,  // DocumentRecord
    kEnds,   // DocumentRecord::end alone, 8 bytes
  };
  struct Options {
    Records records = Records::kWhole;
    int64_t first_byte = 0;   // of the first record
    int64_t documents = 0;    // records
    int64_t tokens = 0;       // of the file that they are of
    int64_t sources = 1;      // records name one below it
    std::string digest = {};  // SHA-256 of the records, as who wrote them says; "": not known
  };
  // DataLoss where the file has no room for the records, or they do not end at the last token.
  static absl::StatusOr<DocumentIndex> open(std::unique_ptr<ReadableFile> file,
                                            const Options& options);

  int64_t documents() const { return options_.documents; }
  const std::string& digest() const { return options_.digest; }
  const std::string& path() const { return file_->path(); }

  // Bytes of records at the beginning, middle and end: what tells other records.
  absl::StatusOr<std::string> sample() const;

  // Appends the documents in which tokens [begin, end) lie. About three reads of a page, however
  // many documents there are. DataLoss where a record is damaged: ends that do not ascend, a source
  // that is not there, a context as long as its document. REQUIRES: 0 <= begin < end <= tokens.
  absl::Status find(int64_t begin, int64_t end, std::vector<StoredDocument>* found) const;
  // Calls `see` for documents [first, first + count), in order. Fails as find() does.
  // REQUIRES: 0 <= first, 0 <= count, first + count <= documents().
  absl::Status read(int64_t first, int64_t count,
                    const std::function<void(const StoredDocument&)>& see) const;

 private:
  DocumentIndex(std::unique_ptr<ReadableFile> file, Options options)
      : file_(std::move(file)), options_(std::move(options)) {}
  absl::Status damaged(int64_t document) const;
  // Documents [first, first + count), in order; *documents is replaced.
  absl::Status read_block(int64_t first, int64_t count,
                          std::vector<StoredDocument>* documents) const;
  // The block of documents in which the one of `token` stands.
  absl::Status find_block(int64_t token, std::vector<StoredDocument>* block) const;

  std::unique_ptr<ReadableFile> file_;
  Options options_;
};

}  // namespace emo

// Rows of whole documents: which documents of a file of tokens share a row of S.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "data/shards/document_index.h"

namespace emo {

enum class DocumentPacking {
  kCut,      // each file is cut into consecutive chunks of S tokens; what is left at its end, less
             // than S tokens, is not used (the reference's concatenate-and-chunk)
  kWhole,    // each chunk holds as many whole documents, one after another, as fit. A document of
             // more than S tokens keeps its last S
  kBestFit,  // a document of more than S tokens is cut into pieces of S, each a chunk, and what is
             // left; then, from the longest to the shortest, each goes where it leaves the least
             // room (best-fit decreasing; Ding et al. 2024, "Fewer Truncations Improve Language
             // Modeling"). No document of at most S tokens is cut
};
const std::vector<std::string>& packing_names();  // in the enum's order
// What kWhole and kBestFit leave free in a chunk is filled with end-of-document tokens that are
// given and not predicted.

// A document, or a part of one, in a row.
struct DocumentPart {
  int64_t first_token;  // in its file
  int32_t tokens;
  int32_t given;      // its first ones, that are not to be predicted
  uint32_t document;  // number in its file
  uint32_t source;
};

// What the fingerprint of data says of rows that are made so; "" for kCut.
std::string fingerprint_text(DocumentPacking packing);

struct PackingCounts {
  int64_t rows = 0;
  int64_t tokens = 0;         // of documents, in rows
  int64_t filling = 0;        // tokens that rows are filled with
  int64_t dropped = 0;        // of documents, in no row
  int64_t documents = 0;      //
  int64_t cut_documents = 0;  // those that one row does not hold whole
  void add(const PackingCounts& other);
};

// What kCut does to the documents of a file, of which there are `rows`: a document of which a part
// is in no row is cut too. Fails as DocumentIndex::read().
absl::StatusOr<PackingCounts> count_cut(const DocumentIndex& documents, int64_t rows, int64_t S);

// Movable; spans stay valid while it lives.
class PackedRows {
 public:
  // Fails as DocumentIndex::read() does; 60 bytes of memory for each document while it packs, 24
  // after. REQUIRES: packing is kWhole or kBestFit, 1 <= S < 2^31, fewer than 2^32 documents.
  static absl::StatusOr<PackedRows> pack(const DocumentIndex& documents, DocumentPacking packing,
                                         int64_t S);
  // The same, kept in the file `path`, mapped, which later runs and other ranks find: then nothing
  // is packed. Fails as FileSystem too; DataLoss where the file was cut.
  static absl::StatusOr<PackedRows> find_or_pack(const std::string& path,
                                                 const DocumentIndex& documents,
                                                 DocumentPacking packing, int64_t S);

  int64_t rows() const { return counts_.rows; }
  // In order of the file; empty where the kept file is damaged there, which its reader must also
  // expect of the parts. REQUIRES: 0 <= row < rows().
  absl::Span<const DocumentPart> row(int64_t row) const;
  const PackingCounts& counts() const { return counts_; }

 private:
  PackedRows() = default;
  static absl::StatusOr<PackedRows> read(const std::string& path);
  absl::Status write(const std::string& path) const;

  absl::Span<const DocumentPart> parts_;
  absl::Span<const int64_t> first_;     // [rows + 1] in parts_
  std::shared_ptr<const void> memory_;  // that of both
  PackingCounts counts_;
};

}  // namespace emo

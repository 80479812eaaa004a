// Rows of whole documents: which documents of a file of tokens share a row of S.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/files/block_file.h"
#include "data/shards/document_index.h"

namespace emo {

// What kWhole and kBestFit leave free in a chunk is filled with end-of-document tokens that are
// given and not predicted.
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

// A document, or a part of one, in a row.
struct DocumentPart {
  int64_t first_token;  // in its file
  int32_t tokens;
  int32_t given;      // its first ones, that are not to be predicted
  uint32_t document;  // number in its file
  uint32_t source;
  bool operator==(const DocumentPart&) const = default;
};

// What the fingerprint of data says of rows that are made so; "" for kCut.
std::string fingerprint_text(DocumentPacking packing);

struct PackingCounts {
  int64_t rows = 0;
  int64_t tokens = 0;   // of documents, in rows
  int64_t filling = 0;  // tokens that rows are filled with
  int64_t dropped = 0;  // of documents, in no row
  int64_t documents = 0;
  int64_t cut_documents = 0;  // those that one row does not hold whole
  void add(const PackingCounts& other);
};

// What kCut does to the documents of a file, of which there are `rows`: a document of which a part
// is in no row is cut too. Fails as DocumentIndex::read().
absl::StatusOr<PackingCounts> count_cut(const DocumentIndex& documents, int64_t rows, int64_t S);

// Movable. Thread-safe.
class PackedRows {
 public:
  PackedRows() : first_{0} {}  // none
  // Fails as DocumentIndex::read() does; InvalidArgument for 2^32 documents or parts and more.
  // Takes about 80 bytes of memory for each document while it packs, and 40 after. REQUIRES:
  // packing is kWhole or kBestFit, 1 <= S < 2^31.
  static absl::StatusOr<PackedRows> pack(const DocumentIndex& documents, DocumentPacking packing,
                                         int64_t S);
  // The same, kept in the file `path`, which later runs and other ranks find: then nothing is
  // packed. Fails as find_or_make() too. REQUIRES: `path` names all that rows follow from.
  static absl::StatusOr<PackedRows> find_or_pack(const std::string& path,
                                                 const DocumentIndex& documents,
                                                 DocumentPacking packing, int64_t S,
                                                 const OpenReadable& open = open_readable);

  int64_t rows() const { return counts_.rows; }
  // The parts of a row, in order of the file. Fails as BlockFile::read(). REQUIRES: 0 <= row <
  // rows().
  absl::Status row(int64_t row, std::vector<DocumentPart>* parts) const;
  const PackingCounts& counts() const { return counts_; }

 private:
  // In memory, or in a file: counts, first, parts.
  std::vector<int64_t> first_;  // [rows + 1] in parts_
  std::vector<DocumentPart> parts_;
  std::optional<BlockFile> file_;
  PackingCounts counts_;
};

}  // namespace emo

// Indices of documents, of token files and of emo prepare: what is found covers what was asked for.
#include <vector>

#include "data/rows/packed_rows.h"
#include "data/shards/end_file.h"
#include "tests/data/files/memory_file.h"

namespace {

void look(const emo::DocumentIndex& index, int64_t tokens, uint8_t at) {
  if (tokens == 0 || index.documents() == 0) return;
  const int64_t begin = (tokens - 1) * at / 255;
  const int64_t end = begin + 1 + (tokens - begin - 1) / 3;
  std::vector<emo::StoredDocument> found;
  if (index.find(begin, end, &found).ok()) {
    if (found.empty() || found.front().begin > begin || found.back().end < end) std::abort();
    for (size_t i = 1; i < found.size(); ++i) {
      if (found[i].begin != found[i - 1].end) std::abort();
    }
  }
  if (tokens > 100000) return;  // rows of whole documents take memory for each part
  emo::PackedRows::pack(index, emo::DocumentPacking::kBestFit, 1 + at).IgnoreError();
  emo::PackedRows::pack(index, emo::DocumentPacking::kWhole, 1 + at).IgnoreError();
  emo::count_cut(index, tokens / (1 + at), 1 + at).IgnoreError();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const uint8_t at = emo::take(&data, &size);
  const int64_t tokens = int64_t{emo::take(&data, &size)} << (emo::take(&data, &size) % 40);
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const auto ends = emo::EndFile::open("file", tokens, emo::opens(bytes));
  if (ends.ok()) look(ends->documents, tokens, at);
  const auto records =
      emo::DocumentIndex::open(std::make_unique<emo::MemoryFile>(bytes),
                               {emo::DocumentIndex::Records::kWhole, 0,
                                static_cast<int64_t>(size) / 24, tokens, 1 + at % 7});
  if (records.ok()) look(*records, tokens, at);
  return 0;
}

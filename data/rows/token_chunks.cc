#include "data/rows/token_chunks.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace emo {
namespace {

// Of token files that are indexed, whose documents end at end-of-document tokens and nowhere else.
bool ends_fit(const std::vector<int32_t>& ends, size_t first, const int32_t* tokens, int64_t S,
              int32_t eos_id, bool last_is_cut) {
  const int64_t ended = static_cast<int64_t>(ends.size() - first) - (last_is_cut ? 1 : 0);
  int64_t found = 0;
  for (int64_t i = 0; i < ended; ++i) found += tokens[ends[first + i] - 1] == eos_id ? 1 : 0;
  return found == ended && std::count(tokens, tokens + S, eos_id) == ended;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TokenChunks>> TokenChunks::create(ShardSet set,
                                                                 const ChunkOptions& options) {
  std::unique_ptr<TokenChunks> chunks(new TokenChunks(std::move(set), options));
  const int64_t together = options.sequence_length * options.group;
  for (size_t i = 0; i < chunks->set_.shards.size(); ++i) {
    int64_t count = chunks->set_.shards[i].tokens.tokens() / together * options.group;
    if (options.packing != DocumentPacking::kCut) {
      absl::Status status = chunks->pack(i);
      if (!status.ok()) return status;
      count = chunks->packed_.back().rows();
    }
    chunks->first_chunk_.push_back(chunks->first_chunk_.back() + count);
  }
  if (chunks->num_chunks() > 0) return chunks;
  const std::vector<TokenShard>& shards = chunks->set_.shards;
  return absl::DataLossError(absl::StrCat(
      shards.empty() ? "data without files" : shards[0].tokens.path(),
      shards.size() > 1 ? " and the others" : "", ": no file holds ", together, " tokens"));
}

absl::Status TokenChunks::pack(size_t file) {
  const TokenShard& of = set_.shards[file];
  if (of.tokens.tokens() == 0) {
    packed_.emplace_back();
    return absl::OkStatus();
  }
  if (!of.documents) {
    return absl::FailedPreconditionError(absl::StrCat(
        of.tokens.path(),
        ": rows of whole documents need to know where they lie: run emo data index, and name its "
        "folder in data.index"));
  }
  const int64_t S = options_.sequence_length;
  const std::string& digest = of.documents->digest();
  const std::string path =
      absl::StrCat(options_.index, "/rows/", set_.files[file].name, "-", digest.substr(0, 16), "-",
                   packing_names()[static_cast<int>(options_.packing)], "-", S, ".rows");
  absl::StatusOr<PackedRows> rows =
      options_.index.empty() || digest.empty()
          ? PackedRows::pack(*of.documents, options_.packing, S)
          : PackedRows::find_or_pack(path, *of.documents, options_.packing, S, options_.open);
  if (!rows.ok()) return rows.status();
  packed_.push_back(*std::move(rows));
  return absl::OkStatus();
}

bool TokenChunks::matches(const std::string& fingerprint) const {
  const std::vector<std::string>& known = set_.fingerprints;
  return std::find(known.begin(), known.end(), fingerprint) != known.end();
}

absl::StatusOr<std::optional<PackingCounts>> TokenChunks::packing() const {
  PackingCounts counts;
  for (const PackedRows& each : packed_) counts.add(each.counts());
  if (options_.packing != DocumentPacking::kCut) return counts;
  for (size_t i = 0; i < set_.shards.size(); ++i) {
    if (!set_.shards[i].documents) return std::nullopt;
    absl::StatusOr<PackingCounts> of_file = count_cut(
        *set_.shards[i].documents, first_chunk_[i + 1] - first_chunk_[i], options_.sequence_length);
    if (!of_file.ok()) return of_file.status();
    counts.add(*of_file);
  }
  return counts;
}

absl::StatusOr<TokenChunks::Place> TokenChunks::place(int64_t chunk) const {
  const auto above = std::upper_bound(first_chunk_.begin(), first_chunk_.end(), chunk);
  const int64_t file = above - first_chunk_.begin() - 1;
  const int64_t row = chunk - first_chunk_[file];
  if (packed_.empty()) return Place{file, row * options_.sequence_length};
  std::vector<DocumentPart> parts;
  absl::Status status = packed_[file].row(row, &parts);
  if (!status.ok()) return status;
  return Place{file, parts.front().first_token};
}

absl::Status TokenChunks::read(int64_t chunk, int32_t* tokens, std::vector<int32_t>* document_ends,
                               std::vector<SpanSource>* sources) const {
  const auto above = std::upper_bound(first_chunk_.begin(), first_chunk_.end(), chunk);
  const int64_t file = above - first_chunk_.begin() - 1;
  const int64_t row = chunk - first_chunk_[file];
  if (!packed_.empty()) return read_packed(file, row, tokens, document_ends, sources);
  return read_cut(set_.shards[file], file, row * options_.sequence_length, tokens, document_ends,
                  sources);
}

// An id beyond the vocabulary is told with its document, where that is known.
absl::Status TokenChunks::read_tokens(const TokenShard& shard, int64_t begin, int64_t count,
                                      int32_t* tokens) const {
  thread_local std::string bytes;
  absl::Status status = shard.tokens.read(begin, count, set_.vocab_size, tokens, &bytes);
  if (status.ok() || !shard.documents) return status;
  const int64_t at = begin + first_beyond(set_.vocab_size, tokens, count);
  if (at == begin + count) return status;
  std::vector<StoredDocument> documents;
  if (!shard.documents->find(at, at + 1, &documents).ok()) return status;
  return {status.code(),
          absl::StrCat(status.message(), " (document ", documents.front().number, ")")};
}

absl::Status TokenChunks::read_cut(const TokenShard& shard, int64_t number, int64_t begin,
                                   int32_t* tokens, std::vector<int32_t>* document_ends,
                                   std::vector<SpanSource>* sources) const {
  const int64_t S = options_.sequence_length;
  absl::Status status = read_tokens(shard, begin, S, tokens);
  if (!status.ok()) return status;
  if (!shard.documents) {
    const size_t before = document_ends->size();
    for (int64_t t = 0; t + 1 < S; ++t) {
      if (tokens[t] == set_.eos_id) document_ends->push_back(static_cast<int32_t>(t + 1));
    }
    document_ends->push_back(static_cast<int32_t>(S));
    sources->insert(sources->end(), document_ends->size() - before,
                    SpanSource{shard.source, -1, number, 0});
    return absl::OkStatus();
  }
  const size_t first = document_ends->size();
  thread_local std::vector<StoredDocument> documents;
  documents.clear();
  status = shard.documents->find(begin, begin + S, &documents);
  if (!status.ok()) return status;
  for (const StoredDocument& document : documents) {
    const int64_t from = std::max(document.begin, begin);
    const int64_t to = std::min(document.end, begin + S);
    const int64_t given = document.begin + document.context - from;
    document_ends->push_back(static_cast<int32_t>(to - begin));
    sources->push_back({shard.source < 0 ? static_cast<int32_t>(document.source) : shard.source,
                        document.number, number, std::clamp(given, int64_t{0}, to - from)});
  }
  const StoredDocument& last = documents.back();
  const bool is_cut = last.end > begin + S || last.number + 1 == shard.documents->documents();
  const bool is_indexed = shard.source >= 0;
  if (is_indexed && !ends_fit(*document_ends, first, tokens, S, set_.eos_id,
                              is_cut && tokens[S - 1] != set_.eos_id)) {
    return absl::DataLossError(absl::StrCat(
        shard.documents->path(), ": documents of ", shard.tokens.path(), " at tokens ", begin,
        " to ", begin + S, " do not end there; remove it, and run emo data index again"));
  }
  return absl::OkStatus();
}

absl::Status TokenChunks::read_packed(int64_t number, int64_t row, int32_t* tokens,
                                      std::vector<int32_t>* document_ends,
                                      std::vector<SpanSource>* sources) const {
  const TokenShard& shard = set_.shards[number];
  const int64_t S = options_.sequence_length;
  thread_local std::vector<DocumentPart> parts;
  absl::Status status = packed_[number].row(row, &parts);
  if (!status.ok()) return status;
  const bool is_indexed = shard.source >= 0;
  int64_t at = 0;
  for (const DocumentPart& part : parts) {
    status = read_tokens(shard, part.first_token, part.tokens, tokens + at);
    if (!status.ok()) return status;
    int32_t* const end = tokens + at + part.tokens - 1;
    if (is_indexed && std::find(tokens + at, end, set_.eos_id) != end) {
      return absl::DataLossError(
          absl::StrCat(shard.tokens.path(), ": a document ends inside tokens ", part.first_token,
                       " to ", part.first_token + part.tokens,
                       ", where data.index knows one; remove its folders ends "
                       "and rows, and run emo data index again"));
    }
    at += part.tokens;
    document_ends->push_back(static_cast<int32_t>(at));
    sources->push_back({shard.source < 0 ? static_cast<int32_t>(part.source) : shard.source,
                        static_cast<int64_t>(part.document), number, part.given});
  }
  if (at == S) return absl::OkStatus();
  std::fill(tokens + at, tokens + S, set_.eos_id);
  document_ends->push_back(static_cast<int32_t>(S));
  sources->push_back({0, -1, -1, S - at});
  return absl::OkStatus();
}

}  // namespace emo

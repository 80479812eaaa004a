#include "data/rows/token_chunks.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/files/file_system.h"
#include "data/files/sha256.h"

namespace emo {
namespace {

constexpr size_t kListed = 12;         // wrong files named in one message
constexpr int64_t kSampledIds = 1024;  // of a file at each of three places

}  // namespace

absl::StatusOr<std::unique_ptr<TokenChunks>> TokenChunks::open(std::vector<MixFile> files,
                                                               TokenChunksOptions options) {
  std::unique_ptr<TokenChunks> chunks(new TokenChunks(std::move(options)));
  std::vector<std::string> wrong;
  bool missing = false;
  for (const MixFile& file : files) {
    absl::Status status = chunks->add(file);
    if (status.ok()) continue;
    missing = missing || absl::IsNotFound(status);
    wrong.emplace_back(status.message());
  }
  if (wrong.size() > kListed) {
    const size_t more = wrong.size() - kListed;
    wrong.resize(kListed);
    wrong.push_back(absl::StrCat("and ", more, " more"));
  }
  const std::string message = absl::StrJoin(wrong, "\n");
  if (missing) return absl::NotFoundError(message);
  if (!wrong.empty()) return absl::DataLossError(message);
  if (chunks->num_chunks() == 0) {
    return absl::DataLossError(
        absl::StrCat(files[0].path, files.size() > 1 ? " and the others" : "", ": no file holds ",
                     chunks->options_.sequence_length * chunks->options_.group, " tokens"));
  }
  absl::Status status = chunks->take_fingerprint(files);
  if (!status.ok()) return status;
  return chunks;
}

absl::Status TokenChunks::add(const MixFile& file) {
  absl::StatusOr<TokenFile> opened = TokenFile::open(file.path, options_.width, options_.open);
  if (!opened.ok()) return opened.status();
  const auto found = std::find(sources_.begin(), sources_.end(), file.label);
  source_of_.push_back(static_cast<int32_t>(found - sources_.begin()));
  if (found == sources_.end()) sources_.push_back(file.label);
  const int64_t together = options_.sequence_length * options_.group;
  first_chunk_.push_back(first_chunk_.back() + opened->tokens() / together * options_.group);
  files_.push_back(*std::move(opened));
  return absl::OkStatus();
}

TokenChunks::Place TokenChunks::place(int64_t chunk) const {
  const auto above = std::upper_bound(first_chunk_.begin(), first_chunk_.end(), chunk);
  const int64_t file = above - first_chunk_.begin() - 1;
  return {file, (chunk - first_chunk_[file]) * options_.sequence_length};
}

absl::Status TokenChunks::read(int64_t chunk, int32_t* tokens, std::vector<int32_t>* document_ends,
                               std::vector<SpanSource>* sources) const {
  const auto [file, first_token] = place(chunk);
  const int64_t S = options_.sequence_length;
  thread_local std::string bytes;
  absl::Status status = files_[file].read(first_token, S, options_.vocab_size, tokens, &bytes);
  if (!status.ok()) return status;
  const size_t before = document_ends->size();
  for (int64_t t = 0; t + 1 < S; ++t) {
    if (tokens[t] == options_.eos_id) document_ends->push_back(static_cast<int32_t>(t + 1));
  }
  document_ends->push_back(static_cast<int32_t>(S));
  sources->insert(sources->end(), document_ends->size() - before,
                  SpanSource{source_of_[file], -1, file, 0});
  return absl::OkStatus();
}

absl::Status TokenChunks::take_fingerprint(const std::vector<MixFile>& files) {
  Sha256 hash;
  hash.update(absl::StrCat("token files v1 ", options_.vocab_size, " ", options_.eos_id, "\n"));
  std::vector<int32_t> ids(kSampledIds);
  std::string bytes;
  for (size_t i = 0; i < files_.size(); ++i) {
    const TokenFile& file = files_[i];
    hash.update(
        absl::StrCat(files[i].label, " ", file_name(file.path()), " ", file.tokens(), "\n"));
    const int64_t count = std::min(kSampledIds, file.tokens());
    for (const int64_t begin : {int64_t{0}, (file.tokens() - count) / 2, file.tokens() - count}) {
      // Any id: those that are read in training are looked at there.
      absl::Status status = file.read(begin, count, INT64_MAX, ids.data(), &bytes);
      if (!status.ok()) return status;
      hash.update({reinterpret_cast<const char*>(ids.data()), static_cast<size_t>(count) * 4});
    }
  }
  fingerprint_ = hash.hex_digest();
  return absl::OkStatus();
}

}  // namespace emo

#include "data/shards/shard_set.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/files/file_system.h"
#include "data/files/sha256.h"
#include "data/program/first_lines.h"
#include "data/shards/end_file.h"
#include "data/shards/token_dataset.h"

namespace emo {
namespace {

constexpr size_t kListed = 12;   // wrong files named in one message
constexpr size_t kOpening = 32;  // files at a time

// The fingerprint of a folder, `tokenizer` as one version or another named it.
std::string of_description(const DatasetInfo& info, const std::string& tokenizer) {
  std::string text =
      absl::StrCat(info.dtype, " ", info.vocab_size, " ", info.eos_id, " ", tokenizer);
  for (const DatasetInfo::Shard& shard : info.shards) {
    absl::StrAppend(&text, " ", shard.tokens, " ", shard.documents, " ", shard.sha256);
  }
  return text;
}

std::vector<std::string> fingerprints_of_folder(const DatasetInfo& info,
                                                const std::vector<DataFile>& files,
                                                const std::string& rows) {
  std::vector<std::string> all;
  const std::string& meaning = info.tokenizer.meaning;
  const std::string text = of_description(info, meaning.empty() ? info.tokenizer.bytes : meaning);
  std::string samples;  // of what lies there, which dataset.json only describes
  for (const DataFile& file : files) absl::StrAppend(&samples, " ", file.sample);
  for (const DatasetInfo::Shard& shard : info.shards) {
    absl::StrAppend(&samples, " ", shard.index_sha256);
  }
  all.push_back("v3:" + sha256_hex(text + samples + rows));
  if (!meaning.empty()) all.push_back("v2:" + sha256_hex(text + rows));
  // Version 0.1.0 knew tokenizers by the bytes of their files.
  all.push_back(sha256_hex(of_description(info, info.tokenizer.bytes) + rows));
  return all;
}

struct OpenedFile {
  TokenShard shard;
  DataFile mark;
  std::string ids;  // those that mark samples
};

absl::StatusOr<OpenedFile> open_file(const MixFile& file, const FileSetOptions& options) {
  absl::StatusOr<TokenFile> tokens = TokenFile::open(file.path, options.width, options.open);
  if (!tokens.ok()) return tokens.status();
  absl::StatusOr<std::string> ids = sampled_ids(*tokens);
  if (!ids.ok()) return ids.status();
  const DataFile mark = mark_of(*tokens, *ids);
  OpenedFile opened{{*std::move(tokens), std::nullopt}, mark, *std::move(ids)};
  if (options.index.empty()) return opened;
  absl::StatusOr<std::optional<EndFile>> index =
      find_ends(options.index, mark, options.eos_id, options.open);
  if (!index.ok()) return index.status();
  if (*index) opened.shard.documents = std::move((*index)->documents);
  return opened;
}

// [files] Many at a time: to open one is to wait for a disk, or a network.
std::vector<absl::StatusOr<OpenedFile>> open_all(const std::vector<MixFile>& files,
                                                 const FileSetOptions& options) {
  std::vector<absl::StatusOr<OpenedFile>> opened;
  for (size_t i = 0; i < files.size(); ++i) opened.emplace_back(absl::UnknownError("not opened"));
  std::atomic<size_t> next{0};
  const auto open_some = [&] {
    for (size_t i = next++; i < files.size(); i = next++) opened[i] = open_file(files[i], options);
  };
  std::vector<std::jthread> threads;
  for (size_t i = 1; i < std::min(kOpening, files.size()); ++i) threads.emplace_back(open_some);
  open_some();
  threads.clear();
  return opened;
}

int32_t source_index(const std::string& label, std::vector<std::string>* sources) {
  const auto found = std::find(sources->begin(), sources->end(), label);
  const auto index = static_cast<int32_t>(found - sources->begin());
  if (found == sources->end()) sources->push_back(label);
  return index;
}

}  // namespace

absl::StatusOr<ShardSet> open_prepared_set(const std::string& folder, const std::string& rows,
                                           const OpenReadable& open) {
  absl::StatusOr<DatasetInfo> info = read_dataset_info(folder);
  if (!info.ok()) return info.status();
  ShardSet set;
  set.sources = info->sources;
  set.vocab_size = info->vocab_size;
  set.eos_id = info->eos_id;
  for (size_t i = 0; i < info->shards.size(); ++i) {
    absl::StatusOr<PreparedShard> shard =
        open_prepared_shard(folder, *info, static_cast<int64_t>(i), open);
    if (!shard.ok()) return shard.status();
    absl::StatusOr<std::string> sample = sampled_ids(shard->tokens);
    if (!sample.ok()) return sample.status();
    absl::StatusOr<std::string> records = shard->documents.sample();
    if (!records.ok()) return records.status();
    set.files.push_back(
        {info->shards[i].name, info->shards[i].tokens, sample_of(*sample + *records)});
    set.shards.push_back({std::move(shard->tokens), std::move(shard->documents)});
  }
  set.fingerprints = fingerprints_of_folder(*info, set.files, rows);
  return set;
}

absl::StatusOr<ShardSet> open_file_set(const std::vector<MixFile>& files,
                                       const FileSetOptions& options) {
  ShardSet set;
  set.vocab_size = options.vocab_size;
  set.eos_id = options.eos_id;
  Sha256 hash;
  hash.update(absl::StrCat("token files v1 ", options.vocab_size, " ", options.eos_id, "\n"));
  std::vector<std::string> wrong;
  bool missing = false;
  std::vector<absl::StatusOr<OpenedFile>> all = open_all(files, options);
  for (size_t i = 0; i < files.size(); ++i) {
    if (absl::IsResourceExhausted(all[i].status())) return all[i].status();
    if (!all[i].ok()) {
      missing = missing || absl::IsNotFound(all[i].status());
      wrong.emplace_back(all[i].status().message());
      continue;
    }
    OpenedFile& opened = *all[i];
    hash.update(absl::StrCat(files[i].label, " ", opened.mark.name, " ", opened.mark.tokens, "\n"));
    hash.update(opened.ids);
    opened.shard.source = source_index(files[i].label, &set.sources);
    set.files.push_back(opened.mark);
    set.shards.push_back(std::move(opened.shard));
  }
  const std::string message = absl::StrJoin(first_lines(wrong, kListed), "\n");
  if (missing) return absl::NotFoundError(message);
  if (!wrong.empty()) return absl::DataLossError(message);
  hash.update(options.rows);
  set.fingerprints.push_back(hash.hex_digest());
  return set;
}

}  // namespace emo

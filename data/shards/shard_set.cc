#include "data/shards/shard_set.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/files/file_system.h"
#include "data/files/sha256.h"
#include "data/shards/end_file.h"
#include "data/shards/token_dataset.h"

namespace emo {
namespace {

constexpr size_t kListed = 12;  // wrong files named in one message

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
  all.push_back("v3:" + sha256_hex(text + samples + rows));
  if (!meaning.empty()) all.push_back("v2:" + sha256_hex(text + rows));
  // Version 0.1.0 knew tokenizers by the bytes of their files.
  all.push_back(sha256_hex(of_description(info, info.tokenizer.bytes) + rows));
  return all;
}

absl::Status add_file(const MixFile& file, const FileSetOptions& options, Sha256* hash,
                      ShardSet* set) {
  absl::StatusOr<TokenFile> opened = TokenFile::open(file.path, options.width, options.open);
  if (!opened.ok()) return opened.status();
  absl::StatusOr<std::string> sample = sampled_ids(*opened);
  if (!sample.ok()) return sample.status();
  const std::string name = file_name(file.path);
  hash->update(absl::StrCat(file.label, " ", name, " ", opened->tokens(), "\n"));
  hash->update(*sample);
  set->files.push_back({name, opened->tokens(), sample_of(*sample)});
  TokenShard shard{*std::move(opened), std::nullopt};
  const auto found = std::find(set->sources.begin(), set->sources.end(), file.label);
  shard.source = static_cast<int32_t>(found - set->sources.begin());
  if (found == set->sources.end()) set->sources.push_back(file.label);
  if (!options.index.empty()) {
    const std::string ends = path_of_ends(options.index, set->files.back(), options.eos_id);
    if (path_exists(ends)) {
      absl::StatusOr<EndFile> index = EndFile::open(ends, shard.tokens.tokens(), options.open);
      if (!index.ok()) return index.status();
      shard.documents = std::move(index->documents);
    }
  }
  set->shards.push_back(std::move(shard));
  return absl::OkStatus();
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
    set.files.push_back({info->shards[i].name, info->shards[i].tokens, sample_of(*sample)});
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
  for (const MixFile& file : files) {
    absl::Status status = add_file(file, options, &hash, &set);
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
  hash.update(options.rows);
  set.fingerprints.push_back(hash.hex_digest());
  return set;
}

}  // namespace emo

#include "data/shards/shard_writer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "data/files/sha256.h"
#include "data/shards/document_index.h"

namespace emo {
namespace {

constexpr size_t kBuffer = 1 << 20;

}  // namespace

struct ShardWriter::Open {
  std::unique_ptr<WritableFile> tokens, index, ids;
  std::string token_buffer, index_buffer, id_buffer;
  DatasetInfo::Shard shard;
  Sha256 token_hash, index_hash;

  absl::Status flush(size_t above) {
    const std::pair<WritableFile*, std::string*> pairs[] = {
        {tokens.get(), &token_buffer}, {index.get(), &index_buffer}, {ids.get(), &id_buffer}};
    for (const auto& [file, buffer] : pairs) {
      if (file == nullptr || buffer->size() <= above) continue;
      if (file == tokens.get()) token_hash.update(*buffer);
      if (file == index.get()) index_hash.update(*buffer);
      absl::Status status = file->append(*buffer);
      if (!status.ok()) return status;
      buffer->clear();
    }
    return absl::OkStatus();
  }
};

ShardWriter::ShardWriter(FileSystem& fs, std::string folder, DatasetInfo info,
                         int64_t tokens_per_shard, bool with_ids)
    : fs_(fs),
      folder_(std::move(folder)),
      info_(std::move(info)),
      tokens_per_shard_(tokens_per_shard),
      with_ids_(with_ids) {
  info_.dtype = info_.vocab_size <= 65536 ? "uint16" : "uint32";
}
ShardWriter::~ShardWriter() = default;

absl::Status ShardWriter::open_shard() {
  open_ = std::make_unique<Open>();
  open_->shard.name = absl::StrFormat("tokens-%05d", info_.shards.size());
  const std::string path = folder_ + "/" + open_->shard.name;
  const std::pair<std::unique_ptr<WritableFile>*, const char*> files[] = {
      {&open_->tokens, ".npy"}, {&open_->index, ".index"}, {&open_->ids, ".ids"}};
  for (const auto& [file, suffix] : files) {
    if (file == &open_->ids && !with_ids_) continue;
    absl::StatusOr<std::unique_ptr<WritableFile>> created =
        fs_.create(path + suffix, Writing::kPrompt);
    if (!created.ok()) return created.status();
    *file = *std::move(created);
  }
  return absl::OkStatus();
}

absl::Status ShardWriter::close_shard() {
  absl::Status status = open_->flush(0);
  for (WritableFile* file : {open_->tokens.get(), open_->index.get(), open_->ids.get()}) {
    if (file == nullptr) continue;
    if (status.ok()) status = file->sync();
    if (status.ok()) status = file->close();
  }
  open_->shard.sha256 = open_->token_hash.hex_digest();
  open_->shard.index_sha256 = open_->index_hash.hex_digest();
  info_.shards.push_back(open_->shard);
  open_.reset();
  return status;
}

uint32_t ShardWriter::source_index(const std::string& source) {
  const auto found = std::find(info_.sources.begin(), info_.sources.end(), source);
  if (found == info_.sources.end()) info_.sources.push_back(source);
  return static_cast<uint32_t>(std::find(info_.sources.begin(), info_.sources.end(), source) -
                               info_.sources.begin());
}

absl::Status ShardWriter::append(const std::vector<int32_t>& tokens, uint64_t bytes,
                                 const std::string& source, const std::string& id,
                                 uint32_t context) {
  const auto count = static_cast<int64_t>(tokens.size());
  if (open_ != nullptr && open_->shard.tokens + count > tokens_per_shard_) {
    absl::Status status = close_shard();
    if (!status.ok()) return status;
  }
  if (open_ == nullptr) {
    absl::Status status = open_shard();
    if (!status.ok()) return status;
  }
  Open& open = *open_;
  for (const int32_t token : tokens) {
    if (info_.dtype == "uint16") {
      const auto narrow = static_cast<uint16_t>(token);
      open.token_buffer.append(reinterpret_cast<const char*>(&narrow), 2);
    } else {
      open.token_buffer.append(reinterpret_cast<const char*>(&token), 4);
    }
  }
  open.shard.tokens += count;
  open.shard.documents += 1;
  const DocumentRecord record{static_cast<uint64_t>(open.shard.tokens), bytes, source_index(source),
                              context};
  open.index_buffer.append(reinterpret_cast<const char*>(&record), sizeof record);
  if (with_ids_) open.id_buffer += absl::StrReplaceAll(id, {{"\n", " "}}) + "\n";
  return open.flush(kBuffer);
}

absl::StatusOr<DatasetInfo> ShardWriter::finish() {
  if (open_ != nullptr) {
    absl::Status status = close_shard();
    if (!status.ok()) return status;
  }
  absl::Status status = write_file_durably(fs_, folder_ + "/dataset.json", to_json(info_));
  if (!status.ok()) return status;
  return info_;
}

}  // namespace emo

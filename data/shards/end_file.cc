#include "data/shards/end_file.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/files/output.h"
#include "data/files/sha256.h"

namespace emo {
namespace {

constexpr char kEndsMagic[] = "emoends1";
constexpr int64_t kHeader = 24;
constexpr int64_t kDigest = 64;             // characters
constexpr int64_t kScannedBlock = 1 << 22;  // tokens that a thread reads at a time

absl::string_view bytes_of(const std::vector<int32_t>& ids) {
  return {reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(int32_t)};
}

absl::string_view bytes_of(absl::Span<const uint64_t> ends) {
  return {reinterpret_cast<const char*>(ends.data()), ends.size() * sizeof(uint64_t)};
}

struct Block {
  std::string bytes;
  std::vector<int32_t> ids;
  std::vector<uint64_t> ends;
  std::string sha256;
  absl::Status status;
};

void read_block(const TokenFile& file, int64_t vocab_size, int32_t eos_id, int64_t begin,
                Block* block) {
  block->ids.resize(static_cast<size_t>(std::min(kScannedBlock, file.tokens() - begin)));
  const auto count = static_cast<int64_t>(block->ids.size());
  block->status = file.read(begin, count, vocab_size, block->ids.data(), &block->bytes);
  if (!block->status.ok()) return;
  block->ends.clear();
  for (int64_t t = 0; t < count; ++t) {
    if (block->ids[t] == eos_id) block->ends.push_back(static_cast<uint64_t>(begin + t + 1));
  }
  block->sha256 = sha256_hex(bytes_of(block->ids));
}

std::string header_of(int64_t tokens, int64_t eos_id) {
  std::string header(kEndsMagic, 8);
  for (const int64_t number : {tokens, eos_id}) {
    header.append(reinterpret_cast<const char*>(&number), sizeof number);
  }
  return header;
}

// Reads the next blocks from `at` on, one a thread. Answers where they end.
int64_t read_blocks(const TokenFile& file, int64_t vocab_size, int32_t eos_id, int64_t at,
                    std::vector<Block>* blocks) {
  std::vector<std::jthread> readers;
  for (Block& block : *blocks) {
    block.ids.clear();
    block.ends.clear();
    block.sha256.clear();
    if (at >= file.tokens()) continue;
    readers.emplace_back([&file, &block, vocab_size, eos_id, at] {
      read_block(file, vocab_size, eos_id, at, &block);
    });
    at = std::min(at + kScannedBlock, file.tokens());
  }
  return at;
}

}  // namespace

std::string path_of_ends(const std::string& folder, const DataFile& file, int32_t eos_id) {
  return absl::StrCat(folder, "/ends/", file.name, "-", file.tokens, "-", file.sample, "-eos-",
                      eos_id, ".ends");
}

absl::StatusOr<EndFile> EndFile::open(const std::string& path, int64_t tokens,
                                      const OpenReadable& open) {
  absl::StatusOr<std::unique_ptr<ReadableFile>> file = open(path);
  if (!file.ok()) return file.status();
  const auto wrong = [&](const std::string& what) {
    return absl::DataLossError(
        absl::StrCat(path, ": ", what, "; remove it, and emo data index makes it anew"));
  };
  const int64_t size = (*file)->size();
  const int64_t documents = (size - kHeader - 2 * kDigest) / 8;
  if (documents < 1 || kHeader + documents * 8 + 2 * kDigest != size) {
    return wrong(absl::StrCat(size, " bytes; truncated?"));
  }
  std::string header(kHeader, '\0');
  std::string digests(2 * kDigest, '\0');
  absl::Status status = (*file)->read(0, kHeader, header.data());
  if (status.ok()) status = (*file)->read(size - 2 * kDigest, 2 * kDigest, digests.data());
  if (!status.ok()) return status;
  int64_t of_tokens = 0;
  std::memcpy(&of_tokens, header.data() + 8, sizeof of_tokens);
  if (header.compare(0, 8, kEndsMagic, 8) != 0 || of_tokens != tokens) {
    return wrong(absl::StrCat("no index of a file of ", tokens, " tokens"));
  }
  absl::StatusOr<DocumentIndex> index = DocumentIndex::open(
      *std::move(file),
      {DocumentIndex::Records::kEnds, kHeader, documents, tokens, 1, digests.substr(kDigest)});
  if (absl::IsDataLoss(index.status())) {
    return wrong("its ends do not go to the last token; truncated?");
  }
  if (!index.ok()) return index.status();
  return EndFile{*std::move(index), digests.substr(0, kDigest), digests.substr(kDigest)};
}

absl::StatusOr<std::optional<EndFile>> find_ends(const std::string& folder, const DataFile& file,
                                                 int32_t eos_id, const OpenReadable& open) {
  const std::string path = path_of_ends(folder, file, eos_id);
  if (!path_exists(path)) return std::nullopt;
  return EndFile::open(path, file.tokens, open);
}

absl::StatusOr<ScannedDocuments> scan_documents(const TokenFile& file, int64_t vocab_size,
                                                int32_t eos_id, int threads, const SeeEnds& see) {
  std::vector<Block> blocks(static_cast<size_t>(threads));
  ScannedDocuments scanned;
  Sha256 ids, ends;
  uint64_t last = 0;
  const auto take = [&](absl::Span<const uint64_t> found, int64_t tokens) {
    if (!found.empty()) last = found.back();
    scanned.documents += static_cast<int64_t>(found.size());
    ends.update(bytes_of(found));
    return see(found, tokens);
  };
  for (int64_t at = 0; at < file.tokens();) {
    at = read_blocks(file, vocab_size, eos_id, at, &blocks);
    for (const Block& block : blocks) {
      if (!block.status.ok()) return block.status;
      ids.update(block.sha256);
      absl::Status status = take(block.ends, static_cast<int64_t>(block.ids.size()));
      if (!status.ok()) return status;
    }
  }
  const auto tokens = static_cast<uint64_t>(file.tokens());
  absl::Status status = last == tokens ? absl::OkStatus() : take({&tokens, 1}, 0);
  if (!status.ok()) return status;
  scanned.ids_sha256 = ids.hex_digest();
  scanned.ends_sha256 = ends.hex_digest();
  return scanned;
}

absl::StatusOr<ScannedDocuments> write_ends(FileSystem& fs, const TokenFile& file,
                                            int64_t vocab_size, int32_t eos_id, int threads,
                                            const std::string& path,
                                            const std::function<void(int64_t tokens)>& see) {
  absl::StatusOr<std::unique_ptr<WritableFile>> out = create_output(fs, path, Writing::kStreamed);
  if (!out.ok()) return out.status();
  absl::Status status = (*out)->append(header_of(file.tokens(), eos_id));
  if (!status.ok()) return status;
  absl::StatusOr<ScannedDocuments> scanned = scan_documents(
      file, vocab_size, eos_id, threads, [&](absl::Span<const uint64_t> ends, int64_t tokens) {
        see(tokens);
        return (*out)->append(bytes_of(ends));
      });
  if (!scanned.ok()) return scanned.status();
  status = (*out)->append(scanned->ids_sha256 + scanned->ends_sha256);
  if (status.ok()) status = (*out)->close();
  if (!status.ok()) return status;
  return scanned;
}

}  // namespace emo

#include "data/files/file_system.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/files/streamed_reader.h"

namespace emo {
namespace {

// Bytes none of whose blocks or pieces equals another.
std::string different_bytes(size_t count) {
  std::string bytes(count, '\0');
  uint64_t state = 1;
  for (char& byte : bytes) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    byte = static_cast<char>(state >> 56);
  }
  return bytes;
}

// Whether files there can be read and written past the system's cache.
bool has_way_past_cache(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECT);
  if (fd >= 0) ::close(fd);
  return fd >= 0;
}

// Of the file's pages, those that are in the system's cache.
double share_in_cache(const std::string& path) {
  const auto file = MappedFile::open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  const absl::string_view bytes = file->bytes();
  std::vector<unsigned char> resident((bytes.size() + 4095) / 4096);
  EXPECT_EQ(::mincore(const_cast<char*>(bytes.data()), bytes.size(), resident.data()), 0);
  const auto count =
      std::count_if(resident.begin(), resident.end(), [](unsigned char r) { return (r & 1) != 0; });
  return static_cast<double>(count) / static_cast<double>(resident.size());
}

// Takes a file's pages out of the cache, where it lies on a disk.
void leave_cache(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY);
  ::fsync(fd);
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  ::close(fd);
}

class FileSystemTest : public ::testing::Test {
 protected:
  ~FileSystemTest() override {
    for (const std::string& path : paths_) std::filesystem::remove(path);
  }
  // Written in appended parts of `part` bytes, synced after `synced` bytes where that is above 0.
  std::string written(const std::string& path, Writing writing, absl::string_view bytes,
                      size_t part, size_t synced = 0) {
    auto file = posix_file_system().create(path, writing);
    EXPECT_TRUE(file.ok()) << file.status();
    for (size_t begin = 0; begin < bytes.size(); begin += part) {
      EXPECT_TRUE((*file)->append(bytes.substr(begin, part)).ok());
      if (synced > 0 && begin < synced && begin + part >= synced) {
        EXPECT_TRUE((*file)->sync().ok());
        EXPECT_EQ(std::filesystem::file_size(path), std::min(begin + part, bytes.size()));
      }
    }
    EXPECT_TRUE((*file)->close().ok());
    return *read_file(path, 1u << 30);
  }
  // A disk, and memory, where writing past the cache may not be possible.
  const std::vector<std::string> paths_ = {::testing::TempDir() + "/emo_file_system_test",
                                           "/dev/shm/emo_file_system_test"};
};

TEST_F(FileSystemTest, AFileHoldsWhatWasAppended) {
  constexpr size_t kPiece = 8 << 20;  // of a streamed file
  for (const std::string& path : paths_) {
    for (const Writing writing : {Writing::kPrompt, Writing::kStreamed}) {
      for (const size_t count : {size_t{0}, size_t{1}, size_t{4095}, size_t{4096}, size_t{4097},
                                 kPiece - 1, kPiece, kPiece + 1, 2 * kPiece, 3 * kPiece + 5000}) {
        const std::string bytes = different_bytes(count);
        for (const size_t part : {size_t{1} << 26, size_t{999'983}}) {
          EXPECT_TRUE(written(path, writing, bytes, part) == bytes) << path << " " << count;
        }
      }
    }
  }
}

TEST_F(FileSystemTest, AStreamedFileGoesOnAfterSync) {
  const std::string bytes = different_bytes(70'000'001);
  for (const std::string& path : paths_) {
    for (const size_t synced : {size_t{1}, size_t{1} << 23, size_t{40'000'000}}) {
      EXPECT_TRUE(written(path, Writing::kStreamed, bytes, 4096, synced) == bytes) << synced;
      EXPECT_TRUE(written(path, Writing::kStreamed, bytes, 4097, synced) == bytes) << synced;
    }
  }
}

TEST_F(FileSystemTest, StreamsPassByTheCache) {
  const std::string& path = paths_.front();
  auto created = posix_file_system().create(path, Writing::kStreamed);
  ASSERT_TRUE(created.ok()) << created.status();
  if (!has_way_past_cache(path)) GTEST_SKIP() << path << ": no O_DIRECT";
  ASSERT_TRUE((*created)->append(different_bytes(100 << 20)).ok());
  ASSERT_TRUE((*created)->sync().ok());
  ASSERT_TRUE((*created)->close().ok());
  EXPECT_LT(share_in_cache(path), 0.2);
  leave_cache(path);
  const auto file = MappedFile::open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  StreamedReader reader({{&*file, file->bytes()}});
  for (size_t read = 0; read < file->bytes().size();) {
    const absl::StatusOr<absl::string_view> piece = reader.next();
    ASSERT_TRUE(piece.ok()) << piece.status();
    read += piece->size();
  }
  EXPECT_LT(share_in_cache(path), 0.2);
}

TEST_F(FileSystemTest, AFullDiskIsReported) {
  for (const size_t count : {size_t{100}, size_t{100} << 20}) {
    auto file = posix_file_system().create("/dev/full", Writing::kStreamed);
    ASSERT_TRUE(file.ok()) << file.status();
    absl::Status status = (*file)->append(std::string(count, 'x'));
    status.Update((*file)->sync());
    EXPECT_FALSE((*file)->sync().ok());  // once failed, it stays so
    EXPECT_FALSE((*file)->close().ok());
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_NE(status.message().find("/dev/full"), absl::string_view::npos) << status;
  }
}

TEST_F(FileSystemTest, AStreamedReaderGivesEveryByteOnce) {
  const std::string bytes = different_bytes(80'000'001);
  const std::string in_memory = different_bytes(5'000'000);
  for (const std::string& path : paths_) {
    for (const bool cached : {true, false}) {
      written(path, Writing::kPrompt, bytes, bytes.size());
      if (!cached) leave_cache(path);
      const auto file = MappedFile::open(path);
      ASSERT_TRUE(file.ok()) << file.status();
      std::vector<StreamedReader::Part> parts;
      std::string expected;
      for (const auto& [begin, count] :
           std::vector<std::pair<size_t, size_t>>{{0, 1},
                                                  {0, 50'000'000},
                                                  {4096, 1 << 20},
                                                  {4095, (1 << 20) + 2},
                                                  {7, 0},
                                                  {40'000'000, 40'000'001},
                                                  {79'000'000, 1'000'001},
                                                  {80'000'000, 1}}) {
        parts.push_back({&*file, file->bytes().substr(begin, count)});
        parts.push_back({nullptr, absl::string_view(in_memory).substr(0, count)});
        expected += bytes.substr(begin, count) + in_memory.substr(0, count);
      }
      StreamedReader reader(parts);
      std::string read;
      while (read.size() < expected.size()) {
        const absl::StatusOr<absl::string_view> piece = reader.next();
        ASSERT_TRUE(piece.ok()) << piece.status();
        ASSERT_GT(piece->size(), 0u);
        ASSERT_LE(piece->size(), StreamedReader::kPiece);
        read.append(piece->data(), piece->size());
      }
      EXPECT_TRUE(read == expected) << path << " " << cached;
    }
  }
}

TEST_F(FileSystemTest, AStreamedReaderSaysThatAFileBecameShorter) {
  const std::string& path = paths_.front();
  for (const size_t size : {size_t{20} << 20, size_t{20'000'001}}) {
    written(path, Writing::kPrompt, different_bytes(40 << 20), 40 << 20);
    if (!has_way_past_cache(path)) GTEST_SKIP() << path << ": no O_DIRECT";
    const auto file = MappedFile::open(path);
    ASSERT_TRUE(file.ok()) << file.status();
    leave_cache(path);
    std::filesystem::resize_file(path, size);
    StreamedReader reader({{&*file, file->bytes()}});
    ASSERT_TRUE(reader.next().ok());
    const absl::Status status = reader.next().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_NE(status.message().find(absl::StrCat("ends at byte ", size)), absl::string_view::npos)
        << status;
  }
}

TEST_F(FileSystemTest, AnotherFileAtThePathIsNotTheMappedOne) {
  const std::string& path = paths_.front();
  written(path, Writing::kPrompt, "one", 3);
  const auto file = MappedFile::open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const int again = file->open_again(O_RDONLY);
  EXPECT_GE(again, 0);
  ::close(again);
  std::filesystem::rename(path, path + ".old");
  written(path, Writing::kPrompt, "two", 3);
  EXPECT_EQ(file->open_again(O_RDONLY), -1);
  std::filesystem::remove(path + ".old");
}

}  // namespace
}  // namespace emo

#include "data/files/block_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "data/files/file_lock.h"
#include "data/order/random_bits.h"

namespace emo {
namespace {

using ::testing::HasSubstr;

class BlockFileTest : public ::testing::Test {
 protected:
  BlockFileTest() { std::filesystem::remove_all(folder_); }
  // Written in pieces of every length.
  absl::StatusOr<BlockFile> make(const std::string& content) {
    return find_or_make(path_, [&](BlockWriter* out) {
      ++made_;
      for (size_t at = 0, piece = 1; at < content.size(); at += piece, piece = piece * 3 % 9973) {
        absl::Status status = out->append(content.substr(at, piece));
        if (!status.ok()) return status;
      }
      return absl::OkStatus();
    });
  }
  static std::string content_of(size_t size) {
    std::string content(size, '\0');
    for (size_t i = 0; i < size; ++i) content[i] = static_cast<char>(random_bits(1, i, 0));
    return content;
  }
  const std::string folder_ = ::testing::TempDir() + "/emo_block_file_test";
  const std::string path_ = folder_ + "/inner/file";
  int made_ = 0;
};

TEST_F(BlockFileTest, HoldsWhatWasWrittenAndIsMadeOnce) {
  for (const size_t size : {0, 1, 4095, 4096, 4097, 100000}) {
    std::filesystem::remove_all(folder_);
    const std::string content = content_of(size);
    made_ = 0;
    for (int time = 0; time < 2; ++time) {
      const auto file = make(content);
      ASSERT_TRUE(file.ok()) << file.status();
      ASSERT_EQ(file->size(), static_cast<int64_t>(size));
      std::string found(size, 'x');
      EXPECT_TRUE(file->read(0, file->size(), found.data()).ok());
      EXPECT_EQ(found, content);
      for (size_t begin = 0; begin < size; begin += 1 + size / 37) {
        const size_t count = std::min<size_t>(size - begin, 5000);
        EXPECT_TRUE(
            file->read(static_cast<int64_t>(begin), static_cast<int64_t>(count), found.data())
                .ok());
        EXPECT_EQ(found.substr(0, count), content.substr(begin, count));
      }
    }
    EXPECT_EQ(made_, 1);
  }
}

TEST_F(BlockFileTest, TellsEveryByteThatHasChanged) {
  const std::string content = content_of(10000);
  ASSERT_TRUE(make(content).ok());
  std::string bytes(std::filesystem::file_size(path_), '\0');
  std::ifstream(path_, std::ios::binary)
      .read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  for (size_t at = 0; at < bytes.size(); at += 7) {
    std::string other = bytes;
    other[at] ^= 4;
    std::ofstream(path_, std::ios::binary) << other;
    const auto file = make(content);
    std::string found(content.size(), '\0');
    const absl::Status status =
        file.ok() ? file->read(0, file->size(), found.data()) : file.status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << at;
    EXPECT_THAT(std::string(status.message()), HasSubstr("remove it"));
  }
  for (size_t size = 0; size < bytes.size(); size += 997) {
    std::filesystem::resize_file(path_, size);
    EXPECT_TRUE(absl::IsDataLoss(make(content).status())) << size;
    std::ofstream(path_, std::ios::binary) << bytes;
  }
}

TEST_F(BlockFileTest, WhatAKilledProcessLeftIsRemovedAndOthersAreNot) {
  std::filesystem::create_directories(folder_ + "/inner");
  std::ofstream(path_ + ".tmp-17") << "half";
  std::ofstream(folder_ + "/inner/other.tmp-17") << "another's";
  ASSERT_TRUE(make("content").ok());
  EXPECT_FALSE(std::filesystem::exists(path_ + ".tmp-17"));
  EXPECT_TRUE(std::filesystem::exists(folder_ + "/inner/other.tmp-17"));
}

TEST_F(BlockFileTest, WhatCannotBeMadeLeavesNothing) {
  const auto file = find_or_make(path_, [](BlockWriter* out) {
    EXPECT_TRUE(out->append("half").ok());
    return absl::DataLossError("no more");
  });
  EXPECT_EQ(file.status().message(), "no more");
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_ + "/inner")) {
    files += entry.path().filename() == ".lock" ? 0 : 1;
  }
  EXPECT_EQ(files, 0);
  EXPECT_TRUE(make("content").ok());
}

// Threads take a lock from one another as processes do: each opens the file.
TEST_F(BlockFileTest, OfManyOneMakesIt) {
  std::vector<std::jthread> threads;
  std::atomic<int> made{0}, good{0};
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      const auto file = find_or_make(path_, [&](BlockWriter* out) {
        ++made;
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        return out->append("content");
      });
      good += file.ok() && file->size() == 7 ? 1 : 0;
    });
  }
  threads.clear();
  EXPECT_EQ(made, 1);
  EXPECT_EQ(good, 8);
}

TEST_F(BlockFileTest, ALockThatIsHeldNamesItsHolder) {
  std::filesystem::create_directories(folder_);
  const auto held = FileLock::take(folder_ + "/lock", FileLock::Held::kRefuse);
  ASSERT_TRUE(held.ok()) << held.status();
  const auto second = FileLock::take(folder_ + "/lock", FileLock::Held::kRefuse);
  EXPECT_TRUE(absl::IsAlreadyExists(second.status()));
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr("in use by process " + std::to_string(::getpid())));
}

}  // namespace
}  // namespace emo

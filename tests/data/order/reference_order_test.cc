#include "data/order/reference_order.h"

#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "data/order/numpy_shuffle.h"

namespace emo {
namespace {

// numpy.random.PCG64(seed).random_raw(3), numpy 2.4.
TEST(Pcg64, GivesNumpysNumbers) {
  Pcg64 one(1);
  for (const uint64_t expected : {0x8306bdf37922e4ffu, 0xf35196bbc152a866u, 0x24e7a4f608ec18cdu}) {
    EXPECT_EQ(one.next64(), expected);
  }
}

// Generator(PCG64(1)).shuffle(arange(10)), and the first of 1000.
TEST(NumpyShuffle, GivesNumpysOrder) {
  std::vector<uint32_t> ten(10);
  std::iota(ten.begin(), ten.end(), 0);
  numpy_shuffle(1, 10, ten.data());
  EXPECT_EQ(ten, (std::vector<uint32_t>{8, 4, 7, 0, 1, 2, 5, 9, 6, 3}));
  std::vector<uint32_t> many(1000);
  std::iota(many.begin(), many.end(), 0);
  numpy_shuffle(1, 1000, many.data());
  const std::array<uint32_t, 10> first = {705, 649, 543, 927, 577, 471, 608, 252, 918, 745};
  EXPECT_TRUE(std::equal(first.begin(), first.end(), many.begin()));
}

TEST(ReferenceOrder, KeepsGroupsTogetherAndSeesEveryChunkOnceAnEpoch) {
  const auto order = ReferenceOrder::create({1000, 2, 10, 0, ""});
  ASSERT_TRUE(order.ok());
  EXPECT_EQ((*order)->sequences_per_epoch(), 1000);
  std::vector<int> seen(1000), again(1000);
  bool differs = false;
  for (int64_t i = 0; i < 1000; ++i) {
    const int64_t chunk = *(*order)->chunk(i);
    ++seen[chunk];
    const int64_t next_epoch = *(*order)->chunk(1000 + i);
    ++again[next_epoch];
    differs = differs || next_epoch != chunk;
    EXPECT_EQ(chunk % 2, i % 2);
    if (i % 2 == 1) {
      EXPECT_EQ(chunk, *(*order)->chunk(i - 1) + 1);
    }
  }
  EXPECT_EQ(seen, std::vector<int>(1000, 1));
  EXPECT_EQ(again, std::vector<int>(1000, 1));
  EXPECT_TRUE(differs);
}

TEST(ReferenceOrder, LeavesOutWhatFillsNoBatch) {
  const auto order = ReferenceOrder::create({1000, 2, 300, 7, ""});
  ASSERT_TRUE(order.ok());
  EXPECT_EQ((*order)->sequences_per_epoch(), 900);
  const auto whole = ReferenceOrder::create({1000, 2, 10, 7, ""});
  EXPECT_EQ(*(*order)->chunk(899), *(*whole)->chunk(899));  // the same epoch ...
  EXPECT_EQ(*(*order)->chunk(900),
            *(*whole)->chunk(1000));  // ... and the next, which begins earlier
  EXPECT_FALSE(ReferenceOrder::create({1000, 2, 1001, 7, ""}).ok());
}

TEST(ReferenceOrder, IsKeptInAFileThatLaterRunsFind) {
  const std::string folder = ::testing::TempDir() + "/emo_reference_order_test";
  std::filesystem::remove_all(folder);
  const auto memory = ReferenceOrder::create({1000, 2, 10, 3, ""});
  const auto file = ReferenceOrder::create({1000, 2, 10, 3, folder});
  for (const int64_t i : {0, 499, 999, 1000, 1999}) {
    EXPECT_EQ(*(*file)->chunk(i), *(*memory)->chunk(i));
  }
  const std::string path = folder + "/order/500-groups-seed-4.u32";
  ASSERT_TRUE(std::filesystem::exists(path));
  const auto made = std::filesystem::last_write_time(path);
  const auto again = ReferenceOrder::create({1000, 2, 10, 3, folder});
  EXPECT_EQ(*(*again)->chunk(0), *(*memory)->chunk(0));
  EXPECT_EQ(std::filesystem::last_write_time(path), made);
  {
    std::fstream there(path, std::ios::in | std::ios::out | std::ios::binary);
    there.seekp(1000);
    there.put('\7');
  }
  const auto damaged = ReferenceOrder::create({1000, 2, 10, 3, folder});
  EXPECT_NE((*damaged)->chunk(0).status().message().find("not what was written; remove it"),
            absl::string_view::npos);
  std::filesystem::resize_file(path, 1999);
  const auto cut = ReferenceOrder::create({1000, 2, 10, 3, folder});
  EXPECT_NE((*cut)->chunk(0).status().message().find("1999 bytes; truncated?"),
            absl::string_view::npos);
}

TEST(ReferenceGroup, HasTheReferencesSizes) {
  EXPECT_EQ(reference_group(1024), 8);
  EXPECT_EQ(reference_group(4096), 2);
  EXPECT_EQ(reference_group(8192), 1);
  EXPECT_EQ(reference_group(16384), 1);
}

}  // namespace
}  // namespace emo

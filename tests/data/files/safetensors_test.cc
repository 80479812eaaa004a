#include "data/files/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "data/files/json.h"

namespace emo {
namespace {

using ::testing::HasSubstr;

std::string path() { return ::testing::TempDir() + "/emo_test.safetensors"; }

void write_raw(const std::string& header, const std::string& data, int64_t header_size = -1) {
  const uint64_t size = header_size < 0 ? header.size() : static_cast<uint64_t>(header_size);
  std::ofstream file(path(), std::ios::binary);
  file.write(reinterpret_cast<const char*>(&size), 8);
  file << header << data;
}

TEST(Safetensors, RoundTrip) {
  const std::vector<float> a = {1, 2, 3, 4, 5, 6};
  const std::vector<int64_t> b = {7, -8};
  const auto bytes = [](const auto& v) {
    return absl::string_view(reinterpret_cast<const char*>(v.data()), v.size() * sizeof(v[0]));
  };
  const auto written = write_safetensors(
      posix_file_system(), ::testing::TempDir(), "emo_test.safetensors",
      {{"a", "F32", {2, 3}, bytes(a)}, {"empty", "F32", {0, 4}, ""}, {"b", "I64", {2}, bytes(b)}},
      {{"format", "pt"}});
  ASSERT_TRUE(written.ok()) << written.status();
  const auto file = SafetensorsFile::open(path());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->metadata().at("format"), "pt");
  EXPECT_EQ(file->find("a", "F32", {2, 3})->bytes, bytes(a));
  EXPECT_EQ(file->find("b", "I64", {2})->bytes, bytes(b));
  EXPECT_THAT(std::string(file->find("a", "F32", {3, 2}).status().message()),
              HasSubstr("[2, 3], expected F32 [3, 2]"));
  EXPECT_EQ(file->find("c", "F32", {1}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(sha256_hex(*read_file(path(), 1 << 20)), written->sha256);
}

struct Hostile {
  const char* header;
  size_t data;
  const char* message;
};
class HostileHeader : public ::testing::TestWithParam<Hostile> {};

TEST_P(HostileHeader, IsRefused) {
  write_raw(GetParam().header, std::string(GetParam().data, 'x'));
  const auto file = SafetensorsFile::open(path());
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(file.status().message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, HostileHeader,
    ::testing::Values(
        Hostile{"", 0, "JSON"}, Hostile{"[1]", 0, "not an object"}, Hostile{"{\"a\":", 0, "JSON"},
        Hostile{
            R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
            8, "twice"},
        Hostile{R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 7, "truncated"},
        Hostile{R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 9, "cover"},
        Hostile{R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12, "hole"},
        Hostile{
            R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
            12, "overlap"},
        Hostile{R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8, "expected 12"},
        Hostile{R"({"a":{"dtype":"X9","shape":[2],"data_offsets":[0,8]}})", 8, "unknown dtype"},
        Hostile{R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8, "list of sizes"},
        Hostile{R"({"a":{"dtype":"F32","shape":[2.5],"data_offsets":[0,8]}})", 8, "list of sizes"},
        Hostile{R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}})", 8,
                "overflow"},
        Hostile{R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8, "offsets"},
        Hostile{R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", 8, "two entries"},
        Hostile{R"({"a":{"shape":[2],"data_offsets":[0,8]}})", 8, "dtype"},
        Hostile{R"({"a":3})", 0, "missing"}));

TEST(Safetensors, HeaderLengthsThatLieAreRefused) {
  for (const int64_t size : {int64_t{1} << 62, int64_t{200} << 20, int64_t{1000}}) {
    write_raw("{}", "", size);
    EXPECT_FALSE(SafetensorsFile::open(path()).ok());
  }
  std::ofstream(path(), std::ios::binary) << "abc";
  EXPECT_FALSE(SafetensorsFile::open(path()).ok());
}

TEST(Json, CapsDepthAndNamesDuplicates) {
  EXPECT_FALSE(parse_json(std::string(100, '[') + std::string(100, ']'), "x").ok());
  EXPECT_THAT(std::string(parse_json(R"({"a":1,"b":{"c":1,"c":2}})", "x").status().message()),
              HasSubstr("'c'"));
  EXPECT_TRUE(parse_json(R"({"a":1,"b":{"a":1}})", "x").ok());
}

}  // namespace
}  // namespace emo

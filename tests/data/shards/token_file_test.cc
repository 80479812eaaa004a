#include "data/shards/token_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "data/shards/npy_header.h"
#include "tests/data/rows/rows_of.h"

namespace emo {
namespace {

using ::testing::HasSubstr;

std::string header(const std::string& dict, char version = 1) {
  std::string text = "\x93NUMPY";
  text += {version, 0};
  const size_t length = dict.size();
  text += {static_cast<char>(length & 255), static_cast<char>(length >> 8)};
  if (version > 1) text += {0, 0};
  return text + dict;
}

TEST(NpyHeader, SaysWhereNumbersBeginAndHowManyThereAre) {
  struct Good {
    std::string dict;
    int64_t width, count;
    bool is_signed;
  };
  for (const Good& good :
       {Good{"{'descr': '<u4', 'fortran_order': False, 'shape': (7,), }   \n", 4, 7, false},
        Good{"{'descr': '<u2', 'fortran_order': False, 'shape': (123456789,)}", 2, 123456789,
             false},
        Good{"{\"shape\":(0,),\"descr\":\"<i8\",\"fortran_order\":True}\n", 8, 0, true},
        Good{"{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }", 1, 3, false}}) {
    for (const char version : {1, 2, 3}) {
      const std::string bytes = header(good.dict, version) + "numbers";
      const auto found = parse_npy_header(bytes, "file");
      ASSERT_TRUE(found.ok()) << found.status();
      EXPECT_EQ(found->width, good.width);
      EXPECT_EQ(found->count, good.count);
      EXPECT_EQ(found->is_signed, good.is_signed);
      EXPECT_EQ(bytes.substr(static_cast<size_t>(found->size)), "numbers");
    }
  }
}

TEST(NpyHeader, RefusesWhatIsNoRowOfTokenIds) {
  const auto why = [](const std::string& bytes) {
    const auto found = parse_npy_header(bytes, "file.npy");
    EXPECT_TRUE(absl::IsDataLoss(found.status())) << bytes;
    return std::string(found.status().message());
  };
  const std::string good = "{'descr': '<u4', 'fortran_order': False, 'shape': (7,), }\n";
  EXPECT_THAT(why(header("{'descr': '>u4', 'fortran_order': False, 'shape': (7,), }")),
              HasSubstr("'>u4'"));
  EXPECT_THAT(why(header("{'descr': '<f4', 'fortran_order': False, 'shape': (7,), }")),
              HasSubstr("'<f4'"));
  EXPECT_THAT(why(header("{'descr': '<u3', 'fortran_order': False, 'shape': (7,), }")),
              HasSubstr("'<u3'"));
  EXPECT_THAT(why(header("{'descr': '<u4', 'fortran_order': False, 'shape': (7, 2), }")),
              HasSubstr("dimension"));
  EXPECT_THAT(why(header("{'descr': '<u4', 'fortran_order': False, 'shape': (), }")),
              HasSubstr("dimension"));
  for (const std::string& dict :
       {std::string("{'descr': '<u4', 'fortran_order': False, }"), std::string("{'descr': '<u4'"),
        std::string(""), std::string("['descr']"), std::string("{'descr': [('a', '<u4')]}"),
        std::string("{'descr': '<u4', 'fortran_order': False, 'shape': (-7,), }"),
        std::string("{'descr': '<u4', 'fortran_order': False, 'shape': (7,), } more"),
        std::string("{'descr': '<u4', 'fortran_order': False, 'shape': (99999999999999999999,)}"),
        std::string("{'descr': '<u4', 'fortran_order': False, 'shape': (7,), 'extra': 1}")}) {
    EXPECT_THAT(why(header(dict)), HasSubstr("cannot be read")) << dict;
  }
  EXPECT_THAT(why(header(good, 4)), HasSubstr("version 4"));
  for (size_t length = 6; length < header(good).size(); ++length) {
    EXPECT_THAT(why(header(good).substr(0, length)), HasSubstr("cut off"));
  }
}

class TokenFileTest : public ::testing::Test {
 protected:
  TokenFileTest() {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  std::string write(const std::string& name, const std::string& bytes) const {
    std::string path = folder_ + "/" + name;
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  template <typename Id>
  static std::string ids(const std::vector<Id>& numbers) {
    return {reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(Id)};
  }
  const std::string folder_ = ::testing::TempDir() + "/emo_token_file_test";
};

TEST_F(TokenFileTest, ReadsEveryWidth) {
  const std::vector<int32_t> expected = {5, 0, 250, 7};
  const auto read = [&](const std::string& bytes, int64_t width) {
    const auto file = TokenFile::open(write("ids", bytes), width);
    EXPECT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(file->tokens(), 4);
    std::vector<int32_t> tokens(4);
    std::string scratch;
    EXPECT_TRUE(file->read(0, 4, 251, tokens.data(), &scratch).ok());
    EXPECT_EQ(tokens, expected);
    EXPECT_TRUE(file->read(2, 1, 251, tokens.data(), &scratch).ok());
    EXPECT_EQ(tokens[0], 250);
  };
  read(ids<uint8_t>({5, 0, 250, 7}), 1);
  read(ids<uint16_t>({5, 0, 250, 7}), 2);
  read(ids<uint32_t>({5, 0, 250, 7}), 4);
  read(ids<uint64_t>({5, 0, 250, 7}), 8);
  const std::string dict = "{'descr': '<u2', 'fortran_order': False, 'shape': (4,), }";
  read(header(dict) + ids<uint16_t>({5, 0, 250, 7}), 4);  // the header knows better
}

TEST_F(TokenFileTest, NamesFilePlaceAndIdThatIsOutsideTheVocabulary) {
  const auto file = TokenFile::open(write("ids", ids<uint32_t>({5, 6, 70000, 7})), 4);
  std::vector<int32_t> tokens(4);
  std::string scratch;
  const absl::Status status = file->read(1, 3, 1000, tokens.data(), &scratch);
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("ids: token 70000 at offset 2"));
  const auto negative = TokenFile::open(
      write("signed", header("{'descr': '<i4', 'fortran_order': False, 'shape': (1,), }") +
                          ids<int32_t>({-1})),
      4);
  EXPECT_TRUE(absl::IsDataLoss(negative->read(0, 1, 1000, tokens.data(), &scratch)));
}

TEST_F(TokenFileTest, RefusesSizesThatDoNotFit) {
  EXPECT_THAT(std::string(TokenFile::open(write("odd", "abcdefg"), 4).status().message()),
              HasSubstr("7 bytes are no whole number of ids of 4"));
  const std::string dict = "{'descr': '<u2', 'fortran_order': False, 'shape': (4,), }";
  EXPECT_THAT(
      std::string(TokenFile::open(write("short", header(dict) + "1234567"), 4).status().message()),
      HasSubstr("truncated"));
  EXPECT_TRUE(absl::IsNotFound(TokenFile::open(folder_ + "/none", 4).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(TokenFile::open(folder_, 4).status()));
  EXPECT_EQ(TokenFile::open(write("empty", ""), 4)->tokens(), 0);
}

// A file that is cut while it is read is an error that names it, not the end of the process.
TEST_F(TokenFileTest, TellsAFileThatWasCutWhileInUse) {
  const std::string path = write("ids", std::string(4096 * 16, '\0'));
  const auto chunks =
      rows_of_files({{"zeros", path}}, {.vocab_size = 10, .width = 4}, {.sequence_length = 1024});
  ASSERT_TRUE(chunks.ok()) << chunks.status();
  EXPECT_EQ((*chunks)->num_chunks(), 16);
  std::vector<int32_t> tokens(1024), ends;
  std::vector<SpanSource> sources;
  EXPECT_TRUE((*chunks)->read(15, tokens.data(), &ends, &sources).ok());
  EXPECT_EQ(ends.size(), 1024);  // every token is an end of document
  std::filesystem::resize_file(path, 4096 * 15 + 100);
  const absl::Status status = (*chunks)->read(15, tokens.data(), &ends, &sources);
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("ids: ends at byte 61540"));
}

TEST_F(TokenFileTest, ChunksCrossNoFileAndLeaveOutTails) {
  std::vector<uint16_t> first(10), second(25);
  for (size_t i = 0; i < first.size(); ++i) first[i] = static_cast<uint16_t>(i);
  for (size_t i = 0; i < second.size(); ++i) second[i] = static_cast<uint16_t>(100 + i);
  const std::string a = write("a", ids(first)), b = write("b", ids(second));
  const FileSetOptions how{.vocab_size = 200, .width = 2, .eos_id = 102};
  const auto read = [&](const TokenChunks& chunks, int64_t chunk, std::vector<int32_t>* ends,
                        std::vector<SpanSource>* sources) {
    std::vector<int32_t> tokens(4);
    EXPECT_TRUE(chunks.read(chunk, tokens.data(), ends, sources).ok());
    return tokens;
  };
  const auto chunks = rows_of_files({{"x", a}, {"y", b}, {"x", a}}, how, {4});
  ASSERT_TRUE(chunks.ok());
  EXPECT_EQ((*chunks)->num_chunks(), 2 + 6 + 2);
  EXPECT_EQ((*chunks)->sources(), (std::vector<std::string>{"x", "y"}));
  std::vector<int32_t> ends;
  std::vector<SpanSource> sources;
  EXPECT_EQ(read(**chunks, 2, &ends, &sources), (std::vector<int32_t>{100, 101, 102, 103}));
  EXPECT_EQ(ends, (std::vector<int32_t>{3, 4}));
  EXPECT_EQ(sources[1].source, 1);
  EXPECT_EQ(sources[1].shard, 1);
  EXPECT_EQ(read(**chunks, 8, &ends, &sources), (std::vector<int32_t>{0, 1, 2, 3}));
  // Groups of 8 tokens: 1, 3 and 1.
  EXPECT_EQ((*rows_of_files({{"x", a}, {"y", b}, {"x", a}}, how, {4, 2}))->num_chunks(), 10);
  EXPECT_EQ((*rows_of_files({{"x", a}, {"y", b}}, how, {4, 4}))->num_chunks(), 4);
}

TEST_F(TokenFileTest, FingerprintsTellOtherDataAndOtherNames) {
  const auto fingerprint = [&](const std::string& name, const std::string& bytes, int32_t eos = 0) {
    const auto chunks = rows_of_files({{"x", write(name, bytes)}},
                                      {.vocab_size = 300, .width = 1, .eos_id = eos}, {4});
    EXPECT_TRUE(chunks.ok()) << chunks.status();
    return (*chunks)->fingerprint();
  };
  const std::string bytes(100000, '\1');
  const std::string one = fingerprint("a", bytes);
  EXPECT_EQ(fingerprint("a", bytes), one);
  EXPECT_NE(fingerprint("b", bytes), one);
  EXPECT_NE(fingerprint("a", bytes, 1), one);
  for (const size_t at : {size_t{0}, size_t{50000}, size_t{99999}}) {
    std::string other = bytes;
    other[at] = '\2';
    EXPECT_NE(fingerprint("a", other), one) << at;
  }
}

TEST_F(TokenFileTest, EveryFileThatIsMissingIsNamed) {
  const auto chunks = rows_of_files({{"x", folder_ + "/one"}, {"x", folder_ + "/two"}},
                                    {.vocab_size = 300, .width = 1}, {4});
  EXPECT_TRUE(absl::IsNotFound(chunks.status()));
  EXPECT_THAT(std::string(chunks.status().message()), HasSubstr("/one"));
  EXPECT_THAT(std::string(chunks.status().message()), HasSubstr("/two"));
}

}  // namespace
}  // namespace emo

#include "data/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/tokenizer/utf8.h"

namespace emo {
namespace {

using ::testing::HasSubstr;

// The byte alphabet as GPT-2 writes it, plus a few merges.
Json small_tokenizer() {
  Json vocab = Json::object();
  int id = 0;
  for (uint32_t byte = 0, next = 256; byte < 256; ++byte) {
    const bool printable =
        (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    std::string token;
    append_code_point(printable ? byte : next++, &token);
    vocab[token] = id++;
  }
  const Json merges = {"a b", "ab c", "Ġ a"};
  for (const std::string token : {"ab", "abc", "Ġa"}) vocab[token] = id++;
  return {
      {"added_tokens", {{{"id", id}, {"content", "<|endoftext|>"}, {"special", true}}}},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
}

std::vector<int32_t> encode(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<int32_t> tokens;
  Tokenizer::Cache cache;
  EXPECT_TRUE(tokenizer.encode(text, &tokens, &cache).ok());
  return tokens;
}

TEST(Tokenizer, MergesByRankAndDecodesBack) {
  const auto tokenizer = Tokenizer::from_json(small_tokenizer(), "test");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(encode(*tokenizer, "abc"), std::vector<int32_t>{tokenizer->id_of("abc")});
  // " a" needs the word to start with the space; "ab" outranks it.
  EXPECT_EQ(encode(*tokenizer, " ab"),
            (std::vector<int32_t>{tokenizer->id_of("Ġ"), tokenizer->id_of("ab")}));
  const std::string text = "Ünïcode \t\n  abc'll 123 \xF0\x9F\x98\x80 end";
  EXPECT_EQ(tokenizer->decode(encode(*tokenizer, text)).value(), text);
}

TEST(Tokenizer, AddedTokensAreCutOutFirst) {
  const auto tokenizer = Tokenizer::from_json(small_tokenizer(), "test");
  const int32_t eos = tokenizer->eos_id("").value();
  EXPECT_EQ(encode(*tokenizer, "ab<|endoftext|>ab"),
            (std::vector<int32_t>{tokenizer->id_of("ab"), eos, tokenizer->id_of("ab")}));
}

TEST(Tokenizer, LongAndShortWordsAreMergedAlike) {
  const auto tokenizer = Tokenizer::from_json(small_tokenizer(), "test");
  // One word far beyond the length that is scanned, made of pieces whose merges are known.
  std::string word;
  std::vector<int32_t> expected;
  for (int i = 0; i < 5000; ++i) {
    word += i % 3 == 0 ? "abc" : "ab";
    expected.push_back(tokenizer->id_of(i % 3 == 0 ? "abc" : "ab"));
  }
  EXPECT_EQ(encode(*tokenizer, word), expected);
}

TEST(Tokenizer, RefusesInvalidUtf8) {
  const auto tokenizer = Tokenizer::from_json(small_tokenizer(), "test");
  std::vector<int32_t> tokens;
  Tokenizer::Cache cache;
  const absl::Status status = tokenizer->encode("good \xC3 bad", &tokens, &cache);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("byte 5"));
}

struct Damage {
  const char* what;
  void (*apply)(Json*);
  const char* message;
};

class DamagedTokenizer : public ::testing::TestWithParam<Damage> {};

TEST_P(DamagedTokenizer, IsRefusedByName) {
  Json json = small_tokenizer();
  GetParam().apply(&json);
  const auto tokenizer = Tokenizer::from_json(json, "tokenizer.json");
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, DamagedTokenizer,
    ::testing::Values(
        Damage{"no model", [](Json* j) { j->erase("model"); }, "no 'model'"},
        Damage{"no pre-tokenizer", [](Json* j) { (*j)["pre_tokenizer"] = nullptr; },
               "no 'pre_tokenizer'"},
        Damage{"no vocab", [](Json* j) { (*j)["model"].erase("vocab"); }, "no 'vocab'"},
        Damage{"no merges", [](Json* j) { (*j)["model"].erase("merges"); }, "no 'merges'"},
        Damage{"a byte is missing", [](Json* j) { (*j)["model"]["vocab"].erase("!"); }, "byte 33"},
        Damage{"merge of unknown token", [](Json* j) { (*j)["model"]["merges"].push_back("x yz"); },
               "'yz'"},
        Damage{"merge twice", [](Json* j) { (*j)["model"]["merges"].push_back("a b"); }, "twice"},
        Damage{"id twice", [](Json* j) { (*j)["model"]["vocab"]["abc"] = 3; }, "id 3"},
        Damage{"negative id", [](Json* j) { (*j)["model"]["vocab"]["abc"] = -1; }, "id -1"},
        Damage{"huge id", [](Json* j) { (*j)["model"]["vocab"]["abc"] = 1 << 30; }, "1073741824"},
        Damage{"other model", [](Json* j) { (*j)["model"]["type"] = "Unigram"; }, "not BPE"},
        Damage{"vocab is a list", [](Json* j) { (*j)["model"]["vocab"] = Json::array({1}); },
               "must be an object"},
        Damage{"normalizer",
               [](Json* j) {
                 (*j)["normalizer"] = {{"type", "NFKC"}};
               },
               "NFKC"},
        Damage{"bad pattern",
               [](Json* j) {
                 (*j)["pre_tokenizer"] = {
                     {"type", "Split"}, {"pattern", {{"Regex", "("}}}, {"behavior", "Isolated"}};
               },
               "pattern '('"},
        Damage{"type of a flag", [](Json* j) { (*j)["pre_tokenizer"]["use_regex"] = "yes"; },
               "type"}));

TEST(Utf8, FindsTheFirstBadByte) {
  EXPECT_EQ(first_invalid_utf8("plain text, long enough for words"), absl::string_view::npos);
  EXPECT_EQ(first_invalid_utf8("é\xE2\x82\xAC\xF0\x9F\x98\x80"), absl::string_view::npos);
  EXPECT_EQ(first_invalid_utf8("ab\xC0\x80"), 2u);                // overlong
  EXPECT_EQ(first_invalid_utf8("abc\xED\xA0\x80"), 3u);           // surrogate
  EXPECT_EQ(first_invalid_utf8("12345678\xF4\x90\x80\x80"), 8u);  // above U+10FFFF
  EXPECT_EQ(first_invalid_utf8("1234567\xE2\x82"), 7u);           // cut off
}

}  // namespace
}  // namespace emo

#include "data/tokenizer/tokenizer_identity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/files/json.h"
#include "data/files/sha256.h"

namespace emo {
namespace {

Json small() {
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"added_tokens",
           {{{"id", 3}, {"content", "<|pad|>"}, {"special", true}, {"normalized", false}},
            {{"id", 4}, {"content", "<|endoftext|>"}, {"special", true}}}},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "Sequence"},
            {"pretokenizers",
             {{{"type", "Split"}, {"pattern", {{"Regex", "a+"}}}, {"behavior", "Isolated"}},
              {{"type", "ByteLevel"}, {"use_regex", false}}}}}},
          {"post_processor", nullptr},
          {"model",
           {{"type", "BPE"},
            {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}}},
            {"merges", Json::array({"a b"})}}}};
}

TokenizerIdentity identity(const Json& json, int indent = -1) {
  const absl::StatusOr<TokenizerIdentity> identity = identify_tokenizer(json.dump(indent), "test");
  EXPECT_TRUE(identity.ok()) << identity.status();
  return identity.value_or(TokenizerIdentity());
}

struct Change {
  const char* what;
  void (*apply)(Json*);
};

std::string name_of(const ::testing::TestParamInfo<Change>& info) { return info.param.what; }

class SameTokenizer : public ::testing::TestWithParam<Change> {};
class OtherTokenizer : public ::testing::TestWithParam<Change> {};

TEST_P(SameTokenizer, HasTheSameIdentity) {
  Json changed = small();
  GetParam().apply(&changed);
  ASSERT_NE(changed, small());
  EXPECT_EQ(identity(changed).meaning, identity(small()).meaning);
  EXPECT_NE(identity(changed).bytes, identity(small()).bytes);
}

TEST_P(OtherTokenizer, HasAnotherIdentity) {
  Json changed = small();
  GetParam().apply(&changed);
  EXPECT_NE(identity(changed).meaning, identity(small()).meaning);
}

Json& step(Json* j, int number) { return (*j)["pre_tokenizer"]["pretokenizers"][number]; }

INSTANTIATE_TEST_SUITE_P(
    All, SameTokenizer,
    ::testing::Values(
        Change{"post_processor",
               [](Json* j) {
                 (*j)["post_processor"] = {{"type", "TemplateProcessing"}};
               }},
        Change{"truncation",
               [](Json* j) {
                 (*j)["truncation"] = {{"max_length", 8}};
               }},
        Change{"merges_as_pairs",
               [](Json* j) {
                 (*j)["model"]["merges"] = Json::array({Json::array({"a", "b"})});
               }},
        Change{"defaults_of_the_model",
               [](Json* j) {
                 (*j)["model"].update({{"dropout", nullptr},
                                       {"continuing_subword_prefix", ""},
                                       {"byte_fallback", false},
                                       {"ignore_merges", false}});
               }},
        Change{"defaults_of_the_steps",
               [](Json* j) {
                 step(j, 0)["invert"] = false;
                 step(j, 1).update({{"add_prefix_space", false}, {"trim_offsets", true}});
               }},
        Change{"a_sequence_in_a_sequence",
               [](Json* j) {
                 const Json inner = (*j)["pre_tokenizer"];
                 (*j)["pre_tokenizer"] = {{"type", "Sequence"},
                                          {"pretokenizers", Json::array({inner})}};
               }},
        Change{"an_empty_normalizer",
               [](Json* j) {
                 (*j)["normalizer"] = {{"type", "Sequence"}, {"normalizers", Json::array()}};
               }},
        Change{"order_of_added_tokens",
               [](Json* j) { std::swap((*j)["added_tokens"][0], (*j)["added_tokens"][1]); }},
        Change{"special", [](Json* j) { (*j)["added_tokens"][0]["special"] = false; }}),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    All, OtherTokenizer,
    ::testing::Values(
        Change{"vocabulary", [](Json* j) { (*j)["model"]["vocab"]["c"] = 5; }},
        Change{"an_id", [](Json* j) { (*j)["model"]["vocab"]["b"] = 5; }},
        Change{"merges", [](Json* j) { (*j)["model"]["merges"] = Json::array(); }},
        Change{"ignore_merges", [](Json* j) { (*j)["model"]["ignore_merges"] = true; }},
        Change{"pattern", [](Json* j) { step(j, 0)["pattern"]["Regex"] = "b+"; }},
        Change{"behavior", [](Json* j) { step(j, 0)["behavior"] = "Removed"; }},
        Change{"invert", [](Json* j) { step(j, 0)["invert"] = true; }},
        Change{"use_regex", [](Json* j) { step(j, 1).erase("use_regex"); }},
        Change{"order_of_steps", [](Json* j) { std::swap(step(j, 0), step(j, 1)); }},
        Change{"normalizer",
               [](Json* j) {
                 (*j)["normalizer"] = {{"type", "NFC"}};
               }},
        Change{"an_added_token", [](Json* j) { (*j)["added_tokens"][0]["content"] = "<pad>"; }},
        Change{"an_added_id", [](Json* j) { (*j)["added_tokens"][0]["id"] = 7; }},
        Change{"one_token_fewer", [](Json* j) { (*j)["added_tokens"].erase(0); }},
        Change{"lstrip", [](Json* j) { (*j)["added_tokens"][0]["lstrip"] = true; }}),
    name_of);

TEST(TokenizerIdentity, HasAVersionAndDoesNotSeeSpaces) {
  EXPECT_EQ(identity(small(), 2).meaning, identity(small()).meaning);
  EXPECT_EQ(identity(small()).meaning.substr(0, 3), "v2:");
  EXPECT_EQ(identity(small()).bytes, sha256_hex(small().dump()));
}

// Written into data sets and checkpoints: it must not move.
TEST(TokenizerIdentity, IsWhatItWas) {
  EXPECT_EQ(identity(small()).meaning,
            "v2:402e5cde213723598137d273100e0222775df66314c66dd6e9d97008703a28a0");
}

TEST(TokenizerIdentity, WhereOneHasNoMeaningTheBytesDecide) {
  EXPECT_TRUE(same_tokenizer({"v2:a", "x"}, {"v2:a", "y"}));
  EXPECT_FALSE(same_tokenizer({"v2:a", "x"}, {"v2:b", "x"}));
  EXPECT_TRUE(same_tokenizer({"v2:a", "x"}, {"", "x"}));
  EXPECT_FALSE(same_tokenizer({"v2:a", "x"}, {"", "y"}));
}

TEST(TokenizerIdentity, RefusesWhatIsNone) {
  for (const char* text : {"[]", "{}", "{\"model\": 3}", "no JSON"}) {
    EXPECT_EQ(identify_tokenizer(text, "here").status().code(), absl::StatusCode::kDataLoss)
        << text;
  }
}

}  // namespace
}  // namespace emo

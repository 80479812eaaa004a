#include "train/subset/keep.h"

#include <gtest/gtest.h>

namespace emo {
namespace {

TEST(Keep, IsAShareOrANumber) {
  const std::pair<const char*, int64_t> of_128[] = {{"0.25", 32},   {"25%", 32},   {"25 %", 32},
                                                    {"12.5 %", 16}, {"32", 32},    {"1", 1},
                                                    {"1.0", 128},   {"100%", 128}, {"1e-1", 13}};
  for (const auto& [text, experts] : of_128) {
    const auto keep = parse_keep(text);
    ASSERT_TRUE(keep.ok()) << text;
    EXPECT_EQ(experts_of(*keep, 128), experts) << text;
    EXPECT_EQ(*parse_keep(to_text(*keep)), *keep) << text;
  }
}

TEST(Keep, AllThatIsWrongIsSaidAtOnce) {
  for (const char* text : {"0", "-1", "1.5", "120%", "", "half", "0.0", "25 % of all", "nan"}) {
    EXPECT_FALSE(parse_keep(text).ok()) << text;
  }
  const std::string said(parse_keeps({"half", "0.5", "1.5"}).status().message());
  EXPECT_NE(said.find("keep half"), std::string::npos);
  EXPECT_NE(said.find("keep 1.5"), std::string::npos);
}

}  // namespace
}  // namespace emo

#include "data/documents/document_reader.h"

#include <gtest/gtest.h>

#include <string>

#include "data/files/json.h"

namespace emo {
namespace {

std::string nested(int depth, const std::string& inside) {
  std::string text;
  for (int i = 0; i < depth; ++i) text += i % 2 == 0 ? R"({"a": )" : "[";
  text += inside;
  for (int i = depth - 1; i >= 0; --i) text += i % 2 == 0 ? "}" : "]";
  return text;
}

TEST(ParseDocument, NothingThatStandsDeepLosesIt) {
  for (const int depth : {1, 62, 63, 64, 65, 66, 1000, 200'001}) {
    const RawDocument raw{R"({"meta": )" + nested(depth, R"({"text": 1, "b": [2]})") +
                              R"(, "text": "good", "id": 7})",
                          "f.jsonl", 3};
    const absl::StatusOr<Document> document = parse_document(raw, {});
    ASSERT_TRUE(document.ok()) << depth << " " << document.status();
    EXPECT_EQ(document->text, "good");
    EXPECT_EQ(document->id, "7");
  }
}

TEST(ParseJson, DropsOrRefusesWhatIsTooDeep) {
  const std::string deep = R"({"a": 1, "b": )" + nested(100, "1") + R"(, "c": 2})";
  EXPECT_EQ(parse_json(deep, "f").status().code(), absl::StatusCode::kDataLoss);
  const absl::StatusOr<Json> dropped = parse_json(deep, "f", TooDeep::kDropped);
  ASSERT_TRUE(dropped.ok()) << dropped.status();
  EXPECT_EQ((*dropped)["a"], 1);
  EXPECT_EQ((*dropped)["c"], 2);
  // Keys are compared within their own object only, whatever was dropped before it.
  const std::string again =
      R"({"b": )" + nested(70, R"({"x": 1})") + R"(, "d": {"a": 1, "b": {"a": 2}}, "a": 3})";
  EXPECT_TRUE(parse_json(again, "f", TooDeep::kDropped).ok());
  for (const char* twice : {R"({"a": 1, "a": 2})", R"({"b": [{"a": {"c": 1}, "a": 2}]})"}) {
    EXPECT_FALSE(parse_json(twice, "f").ok()) << twice;
    EXPECT_FALSE(parse_json(twice, "f", TooDeep::kDropped).ok()) << twice;
  }
}

}  // namespace
}  // namespace emo

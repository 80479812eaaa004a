#include "data/files/json.h"

#include <gtest/gtest.h>

namespace emo {
namespace {

// What a model writes need not be UTF-8, nor need a path.
TEST(Json, BytesThatAreNotUtf8AreReplaced) {
  const OrderedJson json = {{"answer", "caf\xC3\xA9 \xBD"}};
  EXPECT_EQ(to_line(json), "{\"answer\":\"caf\xC3\xA9 \xEF\xBF\xBD\"}\n");
  EXPECT_EQ(to_text(json), "{\n \"answer\": \"caf\xC3\xA9 \xEF\xBF\xBD\"\n}\n");
}

}  // namespace
}  // namespace emo

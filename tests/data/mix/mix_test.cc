#include "data/mix/mix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace emo {
namespace {

using ::testing::HasSubstr;

class MixTest : public ::testing::Test {
 protected:
  MixTest() {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_ + "/web");
    for (const char* name : {"web/b.npy", "web/a.npy", "code.npy", "book.npy"}) {
      std::ofstream(folder_ + "/" + name) << "";
    }
  }
  absl::StatusOr<Mix> read(const std::string& text, const MixNames& names = {}) {
    return parse_mix_yaml(text, folder_ + "/mix.yaml", names);
  }
  std::string error(const std::string& text) {
    const auto mix = read(text);
    EXPECT_TRUE(absl::IsInvalidArgument(mix.status())) << text << " " << mix.status();
    return std::string(mix.status().message());
  }
  const std::string folder_ = ::testing::TempDir() + "/emo_mix_test";
};

TEST_F(MixTest, ReadsSourcesWithWeights) {
  const auto mix = read(R"(
- label: web
  paths: web/*.npy
  weight: 3
- {label: rest, paths: [code.npy, "{TOKENIZER}.npy"], weight: 1.5, max_epochs: 2}
)",
                        {"", "book"});
  ASSERT_TRUE(mix.ok()) << mix.status();
  std::vector<std::string> files;
  for (const MixFile& file : mix->files) files.push_back(file.label + " " + file.path);
  EXPECT_EQ(files, (std::vector<std::string>{
                       "web " + folder_ + "/web/a.npy", "web " + folder_ + "/web/b.npy",
                       "rest " + folder_ + "/code.npy", "rest " + folder_ + "/book.npy"}));
  ASSERT_EQ(mix->sources.size(), 2u);
  EXPECT_EQ(mix->sources[1].first, 2u);
  EXPECT_EQ(mix->sources[1].end, 4u);
  EXPECT_EQ(mix->sources[1].weight, 1.5);
  EXPECT_EQ(mix->sources[1].max_epochs, 2);
  EXPECT_EQ(mix->sources[0].max_epochs, 0);
}

TEST_F(MixTest, WithoutWeightsItIsAListOfFiles) {
  const auto mix = read("- {label: a, paths: code.npy}\n- {label: b, paths: book.npy}\n");
  ASSERT_TRUE(mix.ok()) << mix.status();
  EXPECT_TRUE(mix->sources.empty());
  EXPECT_EQ(mix->files[1].label, "b");
}

TEST_F(MixTest, TokensAreWeightsToo) {
  const auto mix = read(
      "- {label: a, paths: code.npy, tokens: 3_000_000}\n- {label: b, paths: book.npy, tokens: "
      "1e6}\n");
  ASSERT_TRUE(mix.ok()) << mix.status();
  EXPECT_EQ(mix->sources[0].weight, 3e6);
}

TEST_F(MixTest, SaysAllThatIsWrongWithItsPlace) {
  const std::string found = error(R"(- label: a
  path: code.npy
  weight: -1
- {label: a, paths: book.npy, weight: 1, tokens: 4}
- 7
- {label: c, paths: code.npy}
)");
  for (const char* said :
       {"mix.yaml:2:3: unknown key 'path'; did you mean 'paths'?", "mix.yaml:3:11: weight must be",
        "mix.yaml:1:3: a source without 'paths'", "mix.yaml:4:3: a source has a weight, or tokens",
        "mix.yaml:4:3: the label 'a' stands twice", "mix.yaml:5:3: expected a source",
        "mix.yaml:6:3: a source without weight or tokens"}) {
    EXPECT_THAT(found, HasSubstr(said));
  }
  EXPECT_THAT(error("a: 1"), HasSubstr("expected a list of sources"));
  EXPECT_THAT(error(""), HasSubstr("expected a list of sources"));
  EXPECT_THAT(error("- {label: a, paths: [code.npy, '*.npy'], weight: 1}"),
              HasSubstr("code.npy is listed twice"));
  EXPECT_THAT(error("- {label: a, paths: '{TOKENIZER}.npy'}"), HasSubstr("data.tokenizer_name"));
  EXPECT_THAT(error("- {label: a, paths: code.npy, max_epochs: 2}"), HasSubstr("no meaning"));
  EXPECT_THAT(error("- {label: a, paths: []}"), HasSubstr("a list of them"));
  EXPECT_THAT(error("- {label: a, label: b, paths: code.npy}"), HasSubstr("stands twice"));
  EXPECT_THAT(error("- {label: a, paths: code.npy, weight: .inf}"), HasSubstr("above 0"));
  EXPECT_THAT(error("- {label: a"), HasSubstr("mix.yaml:1:"));
  EXPECT_THAT(error(std::string(100000, '[')), HasSubstr("mix.yaml:"));
}

TEST_F(MixTest, MissingFilesAreAnErrorOfTheirOwn) {
  const auto mix = read("- {label: a, paths: [no.npy, none/*.npy]}\n");
  EXPECT_TRUE(absl::IsNotFound(mix.status()));
  EXPECT_THAT(std::string(mix.status().message()), HasSubstr("no.npy: no such file"));
  EXPECT_THAT(std::string(mix.status().message()), HasSubstr("none/*.npy"));
}

TEST_F(MixTest, FingerprintsTellWeights) {
  const auto text = [&](const char* weight) {
    return fingerprint_text(
        *read(std::string("- {label: a, paths: code.npy, weight: ") + weight + "}\n"));
  };
  EXPECT_EQ(text("1"), text("1.0"));
  EXPECT_NE(text("1"), text("1.5"));
  EXPECT_EQ(fingerprint_text(Mix()), "");
}

}  // namespace
}  // namespace emo

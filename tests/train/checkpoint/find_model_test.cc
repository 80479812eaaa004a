#include "train/checkpoint/find_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace emo {
namespace {

using ::testing::HasSubstr;

class FindModelTest : public ::testing::Test {
 protected:
  FindModelTest() { std::filesystem::remove_all(run_); }
  void make(const std::string& name) {
    const std::filesystem::path path = run_ + "/" + name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << "{}";
  }
  const std::string run_ = ::testing::TempDir() + "/emo_find_model_test";
};

TEST_F(FindModelTest, AModelFolderIsItself) {
  make("step-0000003/config.json");
  make("step-0000003/MANIFEST");
  EXPECT_EQ(*find_model(run_ + "/step-0000003"), run_ + "/step-0000003");
  make("config.json");  // a model folder, whatever else lies in it
  EXPECT_EQ(*find_model(run_), run_);
}

TEST_F(FindModelTest, ARunStandsForItsNewestCompleteCheckpoint) {
  for (const char* step : {"step-0000090", "step-0000100", "step-0000110"}) {
    make(std::string(step) + "/config.json");
    if (std::string(step) != "step-0000110") make(std::string(step) + "/MANIFEST");
  }
  EXPECT_EQ(*find_model(run_), run_ + "/step-0000100");
}

TEST_F(FindModelTest, WhatIsNeitherIsNotFound) {
  make("step-0000110/config.json");  // of a crash: no MANIFEST
  for (const std::string& path : {run_, run_ + "/nowhere"}) {
    const absl::Status status = find_model(path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << path;
    EXPECT_THAT(std::string(status.message()), HasSubstr(path + ": no config.json"));
  }
}

}  // namespace
}  // namespace emo

#include "train/checkpoint/checkpoint.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "parallel/self_communicator.h"
#include "tests/model/random_batch.h"

namespace emo {
namespace {

using ::testing::HasSubstr;

ModelConfig config_of(int64_t d_expert = 8) {
  ModelConfig config;
  config.vocab_size = 40;
  config.d_model = 16;
  config.n_layers = 2;
  config.n_heads = 2;
  config.d_expert = d_expert;
  config.num_experts = 6;
  config.top_k = 3;
  config.selection_bias = true;
  return config;
}

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest()
      : model_(config_of(), RoutingContract(), 1), optimizer_(make_optimizer_state(model_.layout)) {
    std::filesystem::remove_all(run_);
    std::filesystem::create_directories(run_);
    fill_random(model_, 5);
    optimizer_.exp_avg.dense.uniform_();
    optimizer_.exp_avg_sq.experts.uniform_();
    description_.config = config_of();
    description_.contract.pool.min = 2;
    description_.contract.pool.eval = 4;
    description_.contract.losses_over = LossTokens::kLabelled;
    description_.contract.balance_scope = BalanceScope::kDocument;
    description_.contract.pool_schedule.steps = 50;
    description_.contract.jitter = 0.25;
    description_.contract.bias_rate = 0.001;
    description_.eos_routes_with = EosRoutesWith::kNext;
  }
  absl::StatusOr<std::string> write(int64_t step) {
    TrainingPosition position{step, 8 * step, 800 * step, "data", {{"train.batch", "8"}}};
    return write_checkpoint(posix_file_system(), *mesh_, run_,
                            {&model_, &optimizer_, &description_, position, ""});
  }
  std::string run_ = ::testing::TempDir() + "/emo_checkpoint_test";
  absl::StatusOr<Mesh> mesh_ = make_mesh(self_communicator(), 1, 1);
  Model model_;
  OptimizerState optimizer_;
  ModelDescription description_;
};

TEST_F(CheckpointTest, ComesBackBitForBit) {
  const auto folder = write(12);
  ASSERT_TRUE(folder.ok()) << folder.status();
  EXPECT_THAT(*folder, HasSubstr("step-0000012"));
  EXPECT_TRUE(verify_checkpoint(*mesh_->world, *folder).ok());
  Model again(config_of(), RoutingContract(), 1);
  OptimizerState optimizer = make_optimizer_state(again.layout);
  ASSERT_TRUE(read_model(*folder, &again).ok());
  ASSERT_TRUE(read_optimizer(*folder, 12, &again, &optimizer).ok());
  EXPECT_EQ(optimizer.step, 12);
  for (const ParameterInfo& p : model_.layout.parameters) {
    EXPECT_EQ(0, std::memcmp(parameter_data(p, model_.parameters),
                             parameter_data(p, again.parameters), p.numel() * 4));
    EXPECT_EQ(0, std::memcmp(parameter_data(p, optimizer_.exp_avg),
                             parameter_data(p, optimizer.exp_avg), p.numel() * 4));
  }
  const auto position = read_position(*folder);
  EXPECT_EQ(position->sequences, 96);
  EXPECT_EQ(position->data_fingerprint, "data");
  const auto description = read_config_json(*folder + "/config.json");
  ASSERT_TRUE(description.ok()) << description.status();
  EXPECT_EQ(to_config_json(*description), to_config_json(description_));
  EXPECT_EQ(description->eos_routes_with, EosRoutesWith::kNext);
  EXPECT_EQ(description->contract.losses_over, LossTokens::kLabelled);
  EXPECT_EQ(description->contract.balance_scope, BalanceScope::kDocument);
  EXPECT_EQ(description->contract.pool_schedule.steps, 50);
  EXPECT_EQ(description->contract.jitter, 0.25);
  EXPECT_EQ(description->contract.bias_rate, 0.001);
  EXPECT_TRUE(description->config.selection_bias);
}

TEST_F(CheckpointTest, TheNewestCompleteOneCountsAndOldOnesGo) {
  EXPECT_EQ(*latest_checkpoint(run_), "");
  for (const int64_t step : {3, 7, 10}) ASSERT_TRUE(write(step).ok());
  EXPECT_EQ(write(7).status().code(), absl::StatusCode::kAlreadyExists);
  std::filesystem::create_directories(run_ + "/step-0000099");      // no MANIFEST
  std::filesystem::create_directories(run_ + "/step-0000011.tmp");  // of a crash
  EXPECT_THAT(*latest_checkpoint(run_), HasSubstr("step-0000010"));
  ASSERT_TRUE(remove_old_checkpoints(posix_file_system(), run_, 2).ok());
  EXPECT_FALSE(std::filesystem::exists(run_ + "/step-0000003"));
  EXPECT_TRUE(std::filesystem::exists(run_ + "/step-0000007"));
}

TEST_F(CheckpointTest, DamageIsFoundAndNamed) {
  const std::string folder = *write(1);
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name == "MANIFEST") continue;
    const std::string kept = *read_file(entry.path().string(), 1 << 30);
    std::string flipped = kept;
    flipped[flipped.size() / 2] ^= 1;
    for (const std::string& damaged : {flipped, kept.substr(0, kept.size() - 1), std::string()}) {
      std::ofstream(entry.path(), std::ios::binary) << damaged;
      const absl::Status status = verify_checkpoint(*mesh_->world, folder);
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << name;
      EXPECT_THAT(std::string(status.message()), HasSubstr(name));
    }
    std::ofstream(entry.path(), std::ios::binary) << kept;
    EXPECT_TRUE(verify_checkpoint(*mesh_->world, folder).ok());
  }
  std::filesystem::remove(folder + "/MANIFEST");
  EXPECT_EQ(verify_checkpoint(*mesh_->world, folder).code(), absl::StatusCode::kNotFound);
}

TEST_F(CheckpointTest, AnotherShapeIsRefusedWithEveryTensor) {
  const std::string folder = *write(1);
  Model wider(config_of(9), RoutingContract(), 1);
  const absl::Status status = read_model(folder, &wider);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("experts.5.down_proj.weight is F32 [16, 8], expected F32 or BF16 [16, 9]"));
  ModelConfig more = config_of();
  more.num_experts = 7;
  Model with_more(more, RoutingContract(), 1);
  const absl::Status missing = read_model(folder, &with_more);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("experts.6.gate_proj.weight is missing"));
  ModelConfig fewer = config_of();
  fewer.n_layers = 1;
  Model with_fewer(fewer, RoutingContract(), 1);
  const absl::Status extra = read_model(folder, &with_fewer);
  EXPECT_THAT(std::string(extra.message()), HasSubstr("is not part of this model"));
}

TEST_F(CheckpointTest, EqualStateGivesEqualBytes) {
  const std::string first = *write(4);
  std::map<std::string, std::string> bytes;
  for (const auto& entry : std::filesystem::directory_iterator(first)) {
    bytes[entry.path().filename().string()] = *read_file(entry.path().string(), 1 << 30);
  }
  std::filesystem::remove_all(first);
  for (const auto& entry : std::filesystem::directory_iterator(*write(4))) {
    const std::string name = entry.path().filename().string();
    if (name == "state.json" || name == "MANIFEST") continue;
    EXPECT_EQ(*read_file(entry.path().string(), 1 << 30), bytes[name]) << name;
  }
}

}  // namespace
}  // namespace emo

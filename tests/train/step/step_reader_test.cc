#include "train/step/step_reader.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>

#include "parallel/self_communicator.h"

namespace emo {
namespace {

constexpr int64_t kS = 16;

// Chunk n is S times the token n % 50. Waits before it answers; fails for one chunk.
class SlowChunks : public ChunkSource {
 public:
  int64_t num_chunks() const override { return 1000; }
  absl::Status read(int64_t chunk, int32_t* tokens, std::vector<int32_t>* document_ends,
                    std::vector<SpanSource>* sources) const override {
    int64_t seen = largest_.load();
    while (chunk > seen && !largest_.compare_exchange_weak(seen, chunk)) {
    }
    std::this_thread::sleep_for(std::chrono::microseconds(200 * (1 + chunk % 7)));
    if (chunk == broken) return absl::DataLossError("chunk " + std::to_string(chunk));
    std::fill_n(tokens, kS, static_cast<int32_t>(chunk % 50));
    document_ends->push_back(kS);
    sources->push_back({0, chunk, 0, 0});
    return absl::OkStatus();
  }
  const std::vector<std::string>& sources() const override { return names_; }
  int64_t vocab_size() const override { return 50; }
  int32_t eos_id() const override { return 0; }
  std::string fingerprint() const override { return "slow"; }

  int64_t largest() const { return largest_.load(); }
  int64_t broken = -1;

 private:
  std::vector<std::string> names_ = {"slow"};
  mutable std::atomic<int64_t> largest_{-1};
};

class StepReaderTest : public ::testing::Test {
 protected:
  StepReaderTest() {
    config_.data.sequence_length = kS;
    config_.data.order = Order::kSequential;
    config_.train.batch = 4;
    config_.train.micro_batches = 2;
    auto source = std::make_unique<SlowChunks>();
    source_ = source.get();
    data_.source = std::move(source);
    data_.loader = config_.loader();
  }
  RunConfig config_;
  RunData data_;
  SlowChunks* source_ = nullptr;
  const Mesh mesh_ = make_mesh(self_communicator(), 1, 1).value();
};

TEST_F(StepReaderTest, AnswersEveryStepInOrder) {
  StepReader reader(data_, config_, mesh_, {.first_sequence = 40, .steps = 30});
  for (int64_t step = 0; step < 30; ++step) {
    const auto found = reader.next();
    const auto expected = load_step(data_, config_, mesh_, 40 + 4 * step);
    ASSERT_TRUE(found.ok() && expected.ok());
    ASSERT_EQ(found->micro_batches.size(), 2);
    for (size_t m = 0; m < 2; ++m) {
      EXPECT_TRUE(
          at::equal(found->micro_batches[m][0].tokens, expected->micro_batches[m][0].tokens));
    }
    EXPECT_EQ(found->divisor_share, expected->divisor_share);
  }
  EXPECT_EQ(source_->largest(), 40 + 4 * 30 - 1) << "read behind the last step";
  EXPECT_GT(reader.seconds_waited(), 0);
}

TEST_F(StepReaderTest, TellsAnErrorWhenItsStepComesAndGoesOnBehindIt) {
  source_->broken = 4 * 5 + 2;
  StepReader reader(data_, config_, mesh_, {.steps = 8});
  for (int64_t step = 0; step < 8; ++step) {
    const auto found = reader.next();
    EXPECT_EQ(found.ok(), step != 5) << step;
    if (step == 5) {
      EXPECT_EQ(found.status().message(), "chunk 22");
    }
  }
}

TEST_F(StepReaderTest, ReadsNoFurtherThanItsDepth) {
  StepReader reader(data_, config_, mesh_, {.steps = 100, .depth = 3, .threads = 8});
  for (int64_t step = 0; step < 20; ++step) {
    ASSERT_TRUE(reader.next().ok());
    EXPECT_LT(source_->largest(), 4 * (step + 1 + 3));
  }
}

TEST_F(StepReaderTest, ReadsAheadWhatFitsIntoMemory) {
  config_.train.batch = 8;
  config_.data.sequence_length = 4096;
  EXPECT_EQ(read_ahead_depth(config_, 1), 16);
  config_.train.batch = 1024;
  EXPECT_EQ(read_ahead_depth(config_, 1), 3);
  EXPECT_EQ(read_ahead_depth(config_, 128), 16);
  config_.train.batch = 1 << 20;
  EXPECT_EQ(read_ahead_depth(config_, 1), 2);
}

TEST_F(StepReaderTest, MayBeDestroyedWhileItReads) {
  for (int64_t asked = 0; asked < 5; ++asked) {
    StepReader reader(data_, config_, mesh_, {.steps = 100});
    for (int64_t step = 0; step < asked; ++step) EXPECT_TRUE(reader.next().ok());
  }
  const StepReader nothing(data_, config_, mesh_, {.steps = 0});
}

}  // namespace
}  // namespace emo

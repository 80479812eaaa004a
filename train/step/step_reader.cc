#include "train/step/step_reader.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace emo {

int64_t read_ahead_depth(const RunConfig& config, int64_t ranks) {
  constexpr int64_t kMostBytes = int64_t{1} << 28;
  constexpr int64_t kBytesOfToken = 16;  // id, label, position, and spans
  const int64_t tokens = config.train.batch * config.data.sequence_length / ranks + 1;
  return std::clamp<int64_t>(kMostBytes / (tokens * kBytesOfToken), 2, 16);
}

StepReader::StepReader(const RunData& data, const RunConfig& config, const Mesh& mesh,
                       ReadAhead ahead)
    : data_(data), config_(config), mesh_(mesh), ahead_(ahead) {
  const int64_t most = std::min<int64_t>({ahead.threads, ahead.depth, ahead.steps});
  for (int64_t i = 0; i < most; ++i) threads_.emplace_back([this] { read_steps(); });
}

StepReader::~StepReader() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  room_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

absl::StatusOr<StepBatches> StepReader::next() {
  const auto begin = std::chrono::steady_clock::now();
  std::unique_lock lock(mutex_);
  TORCH_CHECK(asked_ < ahead_.steps, "a step behind the last of ", ahead_.steps);
  arrived_.wait(lock, [&] { return read_.contains(asked_); });
  absl::StatusOr<StepBatches> step = std::move(read_.extract(asked_).mapped());
  ++asked_;
  lock.unlock();
  seconds_waited_ +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  room_.notify_one();
  return step;
}

void StepReader::read_steps() {
  std::unique_lock lock(mutex_);
  while (true) {
    room_.wait(lock, [&] {
      return stopping_ || started_ == ahead_.steps || started_ < asked_ + ahead_.depth;
    });
    if (stopping_ || started_ == ahead_.steps) return;
    const int64_t step = started_++;
    lock.unlock();
    absl::StatusOr<StepBatches> rows =
        load_step(data_, config_, mesh_, ahead_.first_sequence + step * config_.train.batch);
    lock.lock();
    read_.emplace(step, std::move(rows));
    arrived_.notify_one();
  }
}

}  // namespace emo

// Where the time of a step goes: named spans that do not overlap, summed by kind. A null Profile
// costs a branch.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>

namespace emo {

enum class Work { kRouter, kExchange, kExperts, kAttention, kHead, kOptimizer, kOther };
constexpr int kWorkKinds = 7;
constexpr std::array<const char*, kWorkKinds> kWorkNames = {
    "router", "exchange", "experts", "attention", "head", "optimizer", "other"};

// Seconds by kind; belongs to one rank, used by its main thread only.
class Profile {
 public:
  using Clock = std::chrono::steady_clock;
  void add(Work kind, double seconds) { seconds_[static_cast<size_t>(kind)] += seconds; }
  double seconds(Work kind) const { return seconds_[static_cast<size_t>(kind)]; }
  void clear() { seconds_.fill(0); }

 private:
  std::array<double, kWorkKinds> seconds_{};
};

// Counts the time from here to the end of the scope, or to the next switch_to() or pause().
class Timed {
 public:
  Timed(Profile* profile, Work kind) : profile_(profile), kind_(kind) {
    if (profile_ != nullptr) start_ = Profile::Clock::now();
  }
  ~Timed() { stop(); }
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;
  void switch_to(Work kind) {
    stop();
    kind_ = kind;
    running_ = true;
    if (profile_ != nullptr) start_ = Profile::Clock::now();
  }
  // Until the next switch_to(), time is not counted: what is called here counts its own.
  void pause() {
    stop();
    running_ = false;
  }

 private:
  void stop() {
    if (profile_ == nullptr || !running_) return;
    profile_->add(kind_, std::chrono::duration<double>(Profile::Clock::now() - start_).count());
  }
  Profile* profile_;
  Work kind_;
  bool running_ = true;
  Profile::Clock::time_point start_;
};

}  // namespace emo

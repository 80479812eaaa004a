// Where the time of a step goes: named spans that do not overlap, summed by kind. A null Profile
// costs a branch.
#pragma once

#include <array>
#include <cstdint>

#include "parallel/trace.h"

namespace emo {

enum class Work { kRouter, kExchange, kExperts, kAttention, kHead, kOptimizer, kOther };
constexpr int kWorkKinds = 7;
constexpr std::array<const char*, kWorkKinds> kWorkNames = {
    "router", "exchange", "experts", "attention", "head", "optimizer", "other"};

// Seconds by kind, and where asked for a trace of each span; belongs to one rank, used by its main
// thread only.
class Profile {
 public:
  using Clock = Trace::Clock;
  // `trace` may be null; belongs to the caller.
  explicit Profile(Trace* trace = nullptr) : trace_(trace) {}

  // Where in the model what follows happens: -1 outside layers.
  void set_layer(int64_t layer) { layer_ = layer; }
  void begin(Work kind);
  void end(Work kind, Clock::time_point begun);
  double seconds(Work kind) const { return seconds_[static_cast<size_t>(kind)]; }
  void clear() { seconds_.fill(0); }

 private:
  std::array<double, kWorkKinds> seconds_{};
  Trace* trace_;
  int64_t layer_ = -1;
};

// Counts the time from here to the end of the scope, or to the next switch_to() or pause().
class Timed {
 public:
  Timed(Profile* profile, Work kind) : profile_(profile), kind_(kind) { start(); }
  ~Timed() { stop(); }
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;
  void switch_to(Work kind) {
    stop();
    kind_ = kind;
    running_ = true;
    start();
  }
  // Until the next switch_to(), time is not counted: what is called here counts its own.
  void pause() {
    stop();
    running_ = false;
  }

 private:
  void start() {
    if (profile_ == nullptr) return;
    profile_->begin(kind_);
    start_ = Profile::Clock::now();
  }
  void stop() {
    if (profile_ != nullptr && running_) profile_->end(kind_, start_);
  }
  Profile* profile_;
  Work kind_;
  bool running_ = true;
  Profile::Clock::time_point start_;
};

}  // namespace emo

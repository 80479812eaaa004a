// Where the time of a step goes: named spans that do not overlap, summed by kind. A null Profile
// costs a branch.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Event.h>

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "parallel/trace.h"

namespace emo {

enum class Work { kRouter, kExchange, kExperts, kAttention, kHead, kOptimizer, kOther };
constexpr int kWorkKinds = 7;
constexpr std::array<const char*, kWorkKinds> kWorkNames = {
    "router", "exchange", "experts", "attention", "head", "optimizer", "other"};

// Seconds by kind, and where asked for a trace of each span; belongs to one rank, used by its main
// thread only.
//
// A GPU works behind the host, so there the spans are between marks in its stream: what the host
// had given it when the span began, and when it ended.
class Profile {
 public:
  using Clock = Trace::Clock;
  struct Moment {
    Clock::time_point host;
    std::shared_ptr<const c10::Event> device;  // null on the host
  };

  // Of work on this device. `trace`, of the host's spans, may be null; belongs to the caller.
  explicit Profile(c10::Device device = c10::kCPU, Trace* trace = nullptr)
      : device_(device), trace_(trace) {}

  // Where in the model what follows happens: -1 outside layers.
  void set_layer(int64_t layer) { layer_ = layer; }
  Moment now() const;
  void begin(Work kind);  // what follows is called so in the trace
  void end(Work kind, const Moment& begun, const Moment& ended);
  // Waits for the device. Of the spans that ended before.
  double seconds(Work kind);
  void clear();

 private:
  struct Span {
    Work kind;
    Moment begin, end;
  };
  c10::Device device_;
  std::array<double, kWorkKinds> seconds_{};
  std::vector<Span> on_device_;  // not in seconds_ yet
  Trace* trace_;
  int64_t layer_ = -1;
};

// Counts the time from here to the end of the scope, or to the next switch_to() or pause().
class Timed {
 public:
  Timed(Profile* profile, Work kind) : profile_(profile), kind_(kind) {
    if (profile_ != nullptr) begin(profile_->now());
  }
  ~Timed() { pause(); }
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;
  void switch_to(Work kind) {
    if (profile_ == nullptr) return;
    const Profile::Moment now = profile_->now();  // ends one span and begins the next
    if (running_) profile_->end(kind_, start_, now);
    kind_ = kind;
    begin(now);
  }
  // Until the next switch_to(), time is not counted: what is called here counts its own.
  void pause() {
    if (profile_ == nullptr || !running_) return;
    profile_->end(kind_, start_, profile_->now());
    running_ = false;
  }

 private:
  void begin(const Profile::Moment& now) {
    profile_->begin(kind_);
    start_ = now;
    running_ = true;
  }

  Profile* profile_;
  Work kind_;
  bool running_ = false;
  Profile::Moment start_;
};

}  // namespace emo

#include "model/profile.h"

#include "absl/strings/str_cat.h"

namespace emo {

void Profile::begin(Work kind) {
  if (trace_ == nullptr) return;
  const std::string place = layer_ >= 0 ? absl::StrCat("layer", layer_, "/") : "";
  trace_->set_name(place + kWorkNames[static_cast<size_t>(kind)]);
}

void Profile::end(Work kind, Clock::time_point begun) {
  const Clock::time_point now = Clock::now();
  seconds_[static_cast<size_t>(kind)] += std::chrono::duration<double>(now - begun).count();
  if (trace_ != nullptr) trace_->add(0, begun, now);
}

}  // namespace emo

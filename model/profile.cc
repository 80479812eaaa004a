#include "model/profile.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include "absl/strings/str_cat.h"

namespace emo {

Profile::Moment Profile::now() const {
  if (device_.is_cpu()) return {Clock::now(), nullptr};
  auto mark = std::make_shared<c10::Event>(device_.type(), c10::EventFlag::BACKEND_DEFAULT);
  mark->record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
  return {Clock::now(), std::move(mark)};
}

void Profile::begin(Work kind) {
  if (trace_ == nullptr) return;
  const std::string place = layer_ >= 0 ? absl::StrCat("layer", layer_, "/") : "";
  trace_->set_name(place + kWorkNames[static_cast<size_t>(kind)]);
}

void Profile::end(Work kind, const Moment& begun, const Moment& ended) {
  if (begun.device != nullptr) {
    on_device_.push_back({kind, begun, ended});
    return;
  }
  seconds_[static_cast<size_t>(kind)] +=
      std::chrono::duration<double>(ended.host - begun.host).count();
  if (trace_ != nullptr) trace_->add(0, begun.host, ended.host);
}

double Profile::seconds(Work kind) {
  for (const Span& span : on_device_) {
    span.end.device->synchronize();
    seconds_[static_cast<size_t>(span.kind)] +=
        span.begin.device->elapsedTime(*span.end.device) / 1000;  // of milliseconds
  }
  on_device_.clear();
  return seconds_[static_cast<size_t>(kind)];
}

void Profile::clear() {
  seconds_.fill(0);
  on_device_.clear();
}

}  // namespace emo

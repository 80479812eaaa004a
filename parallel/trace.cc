#include "parallel/trace.h"

#include "absl/strings/str_format.h"

namespace emo {

void Trace::set_name(const std::string& name) {
  const auto [entry, is_new] = numbers_.emplace(name, names_.size());
  if (is_new) names_.push_back(name);
  name_ = entry->second;
}

void Trace::add(int thread, Clock::time_point begin, Clock::time_point end, bool joins_last) {
  std::vector<Span>& spans = spans_[static_cast<size_t>(thread)];
  if (joins_last) {
    spans.back().end = end;
  } else {
    spans.push_back({name_, begin, end});
  }
}

std::string Trace::to_events(int64_t rank, Clock::time_point start) const {
  const auto microseconds = [&](Clock::duration d) {
    return std::chrono::duration<double, std::micro>(d).count();
  };
  std::string events;
  for (size_t thread = 0; thread < spans_.size(); ++thread) {
    for (const Span& span : spans_[thread]) {
      absl::StrAppendFormat(
          &events, R"(%s{"name": "%s", "ph": "X", "pid": %d, "tid": %d, "ts": %.1f, "dur": %.1f})",
          events.empty() ? "" : ",\n", names_[span.name], rank, thread,
          microseconds(span.begin - start), microseconds(span.end - span.begin));
    }
  }
  return events;
}

}  // namespace emo

// A timeline of the device path by libtorch's own profiler (Kineto): its operations on the host
// and, on a GPU, every kernel and copy, as CUPTI saw them.
#pragma once

#include <c10/core/Device.h>

#include <string>

#include "absl/status/status.h"

namespace emo {

// From here to save_device_trace(), on this thread and, where `device` is a GPU, on all its
// streams.
void start_device_trace(at::Device device);

// Ends what start_device_trace() began. Writes the timeline as Chrome's trace events, in place of a
// file that is there. Unavailable where it cannot be written.
absl::Status save_device_trace(const std::string& path);

}  // namespace emo

#include "eval/bench/device_trace.h"

#include <torch/csrc/autograd/profiler_kineto.h>

#include <filesystem>
#include <memory>
#include <set>

#include "absl/strings/str_cat.h"

namespace emo {

namespace profiler = torch::autograd::profiler;

void start_device_trace(at::Device device) {
  using torch::profiler::impl::ActivityType;
  const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
  std::set<ActivityType> activities = {ActivityType::CPU};
  if (device.is_cuda()) activities.insert(ActivityType::CUDA);
  profiler::prepareProfiler(config, activities);
  profiler::enableProfiler(config, activities, {at::RecordScope::FUNCTION});
}

absl::Status save_device_trace(const std::string& path) {
  const std::unique_ptr<profiler::ProfilerResult> result = profiler::disableProfiler();
  result->save(path);  // says nothing where it fails
  std::error_code error;
  if (std::filesystem::file_size(path, error) > 0 && !error) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("the profiler wrote nothing to '", path, "'"));
}

}  // namespace emo

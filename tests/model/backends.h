// The back ends that tests run on: one list for both.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "model/device/backend.h"
#include "model/host/backend.h"
#include "model/parameters.h"
#include "tests/model/device/device_under_test.h"

namespace emo {

enum class On { kHost, kDevice };

constexpr int64_t kHeadRows = 50;  // fewer than a test's tokens

inline std::shared_ptr<Backend> make_backend_on(On where, at::Device device = device_under_test(),
                                                at::ScalarType type = at::kFloat) {
  return where == On::kHost ? host_backend() : device::make_backend(device, type, kHeadRows);
}

inline std::string name_of(On where) { return where == On::kHost ? "host" : "device"; }

inline auto both_backends() { return ::testing::Values(On::kHost, On::kDevice); }

// One parameter of buffers anywhere, on the host.
inline at::Tensor parameter_view(const ParameterInfo& p, const FlatBuffers& buffers) {
  const at::Tensor& buffer = p.buffer == ParameterBuffer::kDense ? buffers.dense : buffers.experts;
  return buffer.slice(0, p.offset, p.offset + p.numel()).view(p.shape).cpu();
}

}  // namespace emo

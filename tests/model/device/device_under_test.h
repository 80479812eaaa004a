// Where the device path's tests compute: the CPU, or what EMO_TEST_DEVICE says ("cuda").
#pragma once

#include <c10/core/Device.h>

#include <cstdlib>
#include <string>

namespace emo {

inline at::Device device_under_test() {
  const char* name = std::getenv("EMO_TEST_DEVICE");
  return at::Device(std::string(name == nullptr ? "cpu" : name));
}

}  // namespace emo

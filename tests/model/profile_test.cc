#include "model/profile.h"

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <gtest/gtest.h>

#include <thread>

namespace emo {
namespace {

// A device whose stream stands at a time that the test sets, in milliseconds.
struct StreamOfTest : c10::impl::DeviceGuardImplInterface {
  static constexpr c10::DeviceType static_type = c10::DeviceType::PrivateUse1;
  static inline double time = 0;
  static inline int marks = 0;  // that live

  explicit StreamOfTest(c10::DeviceType) {}
  StreamOfTest() = default;
  c10::DeviceType type() const override { return static_type; }
  c10::Device exchangeDevice(c10::Device d) const override { return d; }
  c10::Device getDevice() const override { return {static_type, 0}; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device d) const override {
    return c10::Stream(c10::Stream::DEFAULT, d);
  }
  c10::Stream exchangeStream(c10::Stream s) const override { return s; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void** event, const c10::Stream&, const c10::DeviceIndex,
              const c10::EventFlag flag) const override {
    EXPECT_EQ(flag, c10::EventFlag::BACKEND_DEFAULT) << "others measure no time";
    ++marks;
    *event = new double(time);
  }
  void destroyEvent(void* event, const c10::DeviceIndex) const noexcept override {
    if (event != nullptr) --marks;
    delete static_cast<double*>(event);
  }
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}
  double elapsedTime(void* begin, void* end, const c10::DeviceIndex) const override {
    return *static_cast<double*>(end) - *static_cast<double*>(begin);
  }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, StreamOfTest);

TEST(Profile, OnADeviceTakesTheTimesOfItsStream) {
  Profile profile(c10::Device(c10::DeviceType::PrivateUse1, 0));
  StreamOfTest::time = 100;
  {
    Timed timed(&profile, Work::kRouter);
    StreamOfTest::time = 140;
    timed.switch_to(Work::kExperts);
    StreamOfTest::time = 1140;
    timed.pause();
    StreamOfTest::time = 9000;  // is not counted
    timed.switch_to(Work::kRouter);
    StreamOfTest::time = 9002;
  }
  EXPECT_DOUBLE_EQ(profile.seconds(Work::kExperts), 1);
  EXPECT_DOUBLE_EQ(profile.seconds(Work::kRouter), 0.042);
  EXPECT_DOUBLE_EQ(profile.seconds(Work::kRouter), 0.042) << "counted twice";
  EXPECT_EQ(StreamOfTest::marks, 0) << "marks are given back when they were read";
  { const Timed timed(&profile, Work::kHead); }
  profile.clear();
  EXPECT_EQ(profile.seconds(Work::kExperts), 0);
  EXPECT_EQ(StreamOfTest::marks, 0);
}

TEST(Profile, OnTheHostTakesItsClock) {
  Profile profile;
  {
    const Timed timed(&profile, Work::kHead);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  EXPECT_GE(profile.seconds(Work::kHead), 0.002);
  EXPECT_EQ(profile.seconds(Work::kRouter), 0);
}

}  // namespace
}  // namespace emo

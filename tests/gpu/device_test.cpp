#include "gpu/device.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace moraine::gpu {
namespace {

TEST(Device, ReportsPlausibleFacts) {
  const std::optional<DeviceInfo> device = first_device();
  if (!device.has_value()) GTEST_SKIP() << "no CUDA device, or built without the CUDA toolkit";
  EXPECT_FALSE(device->name.empty());
  EXPECT_GE(device->compute_major, 5);
  EXPECT_GE(device->compute_minor, 0);
  EXPECT_GT(device->memory_bytes, uint64_t{1} << 30);
}

// The driver's control node exists exactly where a driver is loaded; without it a device must not be invented.
TEST(Device, IsAbsentWithoutADriver) {
  if (std::filesystem::exists("/dev/nvidiactl") || std::filesystem::exists("/dev/dxg")) {
    GTEST_SKIP() << "this machine has an NVIDIA driver";
  }
  EXPECT_FALSE(first_device().has_value());
}

TEST(Device, AnswersTheSameTwice) {
  const std::optional<DeviceInfo> first = first_device();
  const std::optional<DeviceInfo> second = first_device();
  ASSERT_EQ(first.has_value(), second.has_value());
  if (!first.has_value()) GTEST_SKIP() << "no CUDA device, or built without the CUDA toolkit";
  EXPECT_EQ(first->name, second->name);
  EXPECT_EQ(first->memory_bytes, second->memory_bytes);
}

}  // namespace
}  // namespace moraine::gpu

#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace moraine::gpu {

/// What Moraine needs to know of a CUDA device before it plans work for it.
struct DeviceInfo {
  std::string name;       ///< as the driver reports it
  int compute_major = 0;  ///< compute capability, e.g. 9 of 9.0
  int compute_minor = 0;
  uint64_t memory_bytes = 0;  ///< all of the device's memory, used or not
};

/// The first CUDA device, or nothing where there is none, no driver, or no CUDA toolkit at build time. Never throws: a
/// machine without a GPU is not an error.
std::optional<DeviceInfo> first_device() noexcept;

}  // namespace moraine::gpu

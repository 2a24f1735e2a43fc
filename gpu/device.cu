#include <cuda_runtime_api.h>

#include <exception>

#include "gpu/device.h"

namespace moraine::gpu {

std::optional<DeviceInfo> first_device() noexcept {
  int device_count = 0;
  if (cudaGetDeviceCount(&device_count) != cudaSuccess || device_count < 1) {
    cudaGetLastError();  // Clears the runtime's error, so that a later call does not report it as its own.
    return std::nullopt;
  }
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess) {
    cudaGetLastError();
    return std::nullopt;
  }
  try {
    return DeviceInfo{.name = properties.name,
                      .compute_major = properties.major,
                      .compute_minor = properties.minor,
                      .memory_bytes = properties.totalGlobalMem};
  } catch (const std::exception&) {  // Only the copy of the name can fail: out of memory.
    return std::nullopt;
  }
}

}  // namespace moraine::gpu

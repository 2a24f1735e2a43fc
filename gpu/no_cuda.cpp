#include "gpu/device.h"

namespace moraine::gpu {

// Stands in for device.cu when the CUDA toolkit is absent: no other file asks whether it is.
std::optional<DeviceInfo> first_device() noexcept {
  return std::nullopt;
}

}  // namespace moraine::gpu

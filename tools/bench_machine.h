#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace moraine::tools {

/// The processor's name as the system tells it; "unknown" if it does not.
std::string cpu_name(const std::filesystem::path& cpuinfo = "/proc/cpuinfo");

/// Size of a buffer whose reading shows the memory and not the caches: 1.5 GiB or four times the L3, but no more than a
/// quarter of the RAM that is free.
uint64_t dram_buffer_bytes(uint64_t l3_bytes, uint64_t available_bytes);

}  // namespace moraine::tools

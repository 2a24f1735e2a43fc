#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace moraine::offload {

/// What the control groups around this process allow.
struct MemoryLimit {
  uint64_t limit_bytes = 0;      ///< the tightest limit, hard (memory.max) or soft (memory.high)
  uint64_t available_bytes = 0;  ///< that could still be had under every limit; cached file pages count as free
  uint64_t over_bytes = 0;       ///< held beyond a limit: it was lowered, or is a soft one
};

/// The memory limits of the control groups that this process is in (v2 and v1), or nothing if none is set.
/// `process_groups`: /proc/self/cgroup; `mount`: /sys/fs/cgroup. What can't be read limits nothing.
std::optional<MemoryLimit> read_memory_limit(const std::filesystem::path& process_groups = "/proc/self/cgroup",
                                             const std::filesystem::path& mount = "/sys/fs/cgroup");

/// RAM that could be had now: MemAvailable of `meminfo`, and no more than the limit leaves. 0 if it can't be told.
uint64_t available_ram_bytes(const std::optional<MemoryLimit>& limit,
                             const std::filesystem::path& meminfo = "/proc/meminfo");

/// RAM of the machine: MemTotal of `meminfo`; 0 if it can't be told.
uint64_t total_ram_bytes(const std::filesystem::path& meminfo = "/proc/meminfo");

}  // namespace moraine::offload

#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

namespace moraine::offload {

/// Port: how much memory the system wants back, and when it can spare some again.
class MemoryPressure {
 public:
  virtual ~MemoryPressure() = default;
  /// Bytes that a holder of `held_bytes` should give back now; 0: none. Called by one thread every now and then.
  virtual uint64_t excess_bytes(uint64_t held_bytes) = 0;
  /// Bytes that a holder who gave some back may take again now, in units of `unit_bytes`; less than one: none. Called
  /// after excess_bytes() by the same thread.
  virtual uint64_t spare_bytes(uint64_t unit_bytes) = 0;
};

/// Where Linux tells it.
struct PressureFiles {
  std::filesystem::path psi = "/proc/pressure/memory";
  std::filesystem::path meminfo = "/proc/meminfo";
  std::filesystem::path process_groups = "/proc/self/cgroup";
  std::filesystem::path groups = "/sys/fs/cgroup";
};

/// Two signs. The room under the control groups' limits, or in the system, falls below a margin of 1/64 (at most 256
/// MiB): that asks for what is missing. Tasks stall for memory (PSI) for more than a tenth of the time since the last
/// call: that asks for a twentieth of what is held. PSI of this process' control group counts where it has one; that of
/// the system only while less than an eighth of its RAM is available, since others may stall under limits of their own.
/// What can't be read asks for nothing.
///
/// Memory returns slowly, so that it is not taken from one who is about to need it: after kQuiet in which nothing was
/// asked for and nobody stalled for a hundredth of the time, what lies beyond four margins, at most a 64th of the whole
/// (or one unit) each time, and then not again for kGrowEvery.
class SystemPressure : public MemoryPressure {
 public:
  explicit SystemPressure(PressureFiles files = {});
  uint64_t excess_bytes(uint64_t held_bytes) override;
  /// The same at a given time, for tests.
  uint64_t excess_bytes_at(uint64_t held_bytes, std::chrono::steady_clock::time_point now);
  uint64_t spare_bytes(uint64_t unit_bytes) override;

  static constexpr std::chrono::seconds kQuiet{10};
  static constexpr std::chrono::seconds kGrowEvery{1};

 private:
  /// The bytes of a limit, or of the system, and those of it that could be had.
  struct Room {
    uint64_t whole_bytes = 0;
    uint64_t available_bytes = 0;
    uint64_t over_bytes = 0;  // held beyond the limit
  };
  std::vector<Room> rooms() const;
  bool is_system_short() const;

  const PressureFiles files_;
  std::filesystem::path group_psi_;  // empty: none
  uint64_t last_group_stall_us_ = 0, last_system_stall_us_ = 0;
  std::optional<std::chrono::steady_clock::time_point> last_call_;
  std::optional<std::chrono::steady_clock::time_point> may_grow_;  ///< from then on; empty: the clock has not begun
};

}  // namespace moraine::offload

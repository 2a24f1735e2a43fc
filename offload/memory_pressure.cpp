#include "offload/memory_pressure.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>
#include <utility>

#include "offload/memory_limit.h"

namespace moraine::offload {
namespace {

/// "some avg10=0.00 avg60=0.00 avg300=0.00 total=123": the time in µs in which some task waited for memory.
uint64_t read_stalled_us(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::string word;
  if (!(in >> word) || word != "some") return 0;
  while (in >> word && word != "full") {
    if (!word.starts_with("total=")) continue;
    uint64_t total = 0;
    for (const char digit : word.substr(6)) {
      if (digit < '0' || digit > '9') return 0;
      total = total * 10 + static_cast<uint64_t>(digit - '0');
    }
    return total;
  }
  return 0;
}

/// memory.pressure of this process' version 2 control group.
std::filesystem::path group_psi(const PressureFiles& files) {
  std::ifstream in(files.process_groups);
  std::string line;
  while (std::getline(in, line)) {
    if (!line.starts_with("0::/")) continue;
    const std::filesystem::path file = files.groups / line.substr(4) / "memory.pressure";
    std::error_code ignored;
    if (std::filesystem::exists(file, ignored)) return file;
  }
  return {};
}

uint64_t margin_bytes(uint64_t whole_bytes) {
  constexpr uint64_t kLargestMargin = 256u << 20;
  return std::min(whole_bytes / 64, kLargestMargin);
}

}  // namespace

SystemPressure::SystemPressure(PressureFiles files) : files_(std::move(files)), group_psi_(group_psi(files_)) {}

uint64_t SystemPressure::excess_bytes(uint64_t held_bytes) {
  return excess_bytes_at(held_bytes, std::chrono::steady_clock::now());
}

bool SystemPressure::is_system_short() const {
  return available_ram_bytes(std::nullopt, files_.meminfo) < total_ram_bytes(files_.meminfo) / 8;
}

std::vector<SystemPressure::Room> SystemPressure::rooms() const {
  std::vector<Room> rooms;
  const std::optional<MemoryLimit> limit = read_memory_limit(files_.process_groups, files_.groups);
  if (limit) rooms.push_back({limit->limit_bytes, limit->available_bytes, limit->over_bytes});
  const uint64_t system_bytes = total_ram_bytes(files_.meminfo);
  if (system_bytes > 0) rooms.push_back({system_bytes, available_ram_bytes(std::nullopt, files_.meminfo)});
  return rooms;
}

uint64_t SystemPressure::spare_bytes(uint64_t unit_bytes) {
  if (!last_call_ || !may_grow_ || *last_call_ < *may_grow_) return 0;
  uint64_t spare = std::numeric_limits<uint64_t>::max();
  const std::vector<Room> all = rooms();
  for (const Room& room : all) {
    const uint64_t kept_bytes = 4 * margin_bytes(room.whole_bytes);
    spare = std::min({spare, room.available_bytes - std::min(kept_bytes, room.available_bytes),
                      std::max(room.whole_bytes / 64, unit_bytes)});
  }
  if (all.empty() || spare < unit_bytes) return 0;
  may_grow_ = *last_call_ + kGrowEvery;
  return spare;
}

uint64_t SystemPressure::excess_bytes_at(uint64_t held_bytes, std::chrono::steady_clock::time_point now) {
  const auto stall_since_last_us = [](const std::filesystem::path& file, uint64_t& last_us) {
    const uint64_t before_us = std::exchange(last_us, file.empty() ? 0 : read_stalled_us(file));
    return last_us - std::min(before_us, last_us);
  };
  const uint64_t group_us = stall_since_last_us(group_psi_, last_group_stall_us_);
  const uint64_t system_us = stall_since_last_us(files_.psi, last_system_stall_us_);
  const auto last_call = std::exchange(last_call_, now);
  uint64_t excess = 0;
  for (const Room& room : rooms()) {
    const uint64_t margin = margin_bytes(room.whole_bytes);
    excess = std::max(excess, room.over_bytes + margin - std::min(margin, room.available_bytes));
  }
  bool is_quiet = last_call.has_value();
  if (last_call) {
    const auto elapsed_us = std::chrono::duration_cast<std::chrono::microseconds>(now - *last_call).count();
    const uint64_t hundredth_us = static_cast<uint64_t>(std::max<int64_t>(elapsed_us, 0)) / 100;
    const uint64_t tenth_us = 10 * hundredth_us;
    const bool is_stalled = group_us > tenth_us || (system_us > tenth_us && is_system_short());
    if (is_stalled) excess = std::max(excess, held_bytes / 20);
    is_quiet = group_us <= hundredth_us && (system_us <= hundredth_us || !is_system_short());
  }
  if (excess > 0 || !is_quiet || !may_grow_) may_grow_ = now + kQuiet;
  return std::min(excess, held_bytes);
}

}  // namespace moraine::offload

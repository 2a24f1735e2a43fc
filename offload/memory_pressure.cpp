#include "offload/memory_pressure.h"

#include <algorithm>
#include <fstream>
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

uint64_t SystemPressure::missing_bytes() const {
  uint64_t missing = 0;
  const auto need = [&missing](uint64_t margin, uint64_t available) {
    if (available < margin) missing = std::max(missing, margin - available);
  };
  const std::optional<MemoryLimit> limit = read_memory_limit(files_.process_groups, files_.groups);
  if (limit) need(margin_bytes(limit->limit_bytes), limit->available_bytes);
  const uint64_t system_bytes = total_ram_bytes(files_.meminfo);
  if (system_bytes > 0) need(margin_bytes(system_bytes), available_ram_bytes(std::nullopt, files_.meminfo));
  return missing;
}

uint64_t SystemPressure::excess_bytes_at(uint64_t held_bytes, std::chrono::steady_clock::time_point now) {
  const auto stall_since_last_us = [](const std::filesystem::path& file, uint64_t& last_us) {
    const uint64_t before_us = std::exchange(last_us, file.empty() ? 0 : read_stalled_us(file));
    return last_us - std::min(before_us, last_us);
  };
  const uint64_t group_us = stall_since_last_us(group_psi_, last_group_stall_us_);
  const uint64_t system_us = stall_since_last_us(files_.psi, last_system_stall_us_);
  const auto last_call = std::exchange(last_call_, now);
  uint64_t excess = missing_bytes();
  if (last_call) {
    const auto elapsed_us = std::chrono::duration_cast<std::chrono::microseconds>(now - *last_call).count();
    const uint64_t tenth_us = static_cast<uint64_t>(std::max<int64_t>(elapsed_us, 0)) / 10;
    const bool is_stalled = group_us > tenth_us || (system_us > tenth_us && is_system_short());
    if (is_stalled) excess = std::max(excess, held_bytes / 20);
  }
  return std::min(excess, held_bytes);
}

}  // namespace moraine::offload

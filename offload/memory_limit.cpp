#include "offload/memory_limit.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>

namespace moraine::offload {
namespace {

/// Above any machine's RAM: how v1 says "no limit".
constexpr uint64_t kNoLimitBytes = uint64_t{1} << 60;

/// The file's only number; nothing if it is absent or says "max".
std::optional<uint64_t> read_number(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::string word;
  uint64_t value = 0;
  if (!(in >> word)) return std::nullopt;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return value;
}

/// The number behind `key` in a file of "key value" lines.
std::optional<uint64_t> read_field(const std::filesystem::path& file, std::string_view key) {
  std::ifstream in(file);
  std::string line;
  while (std::getline(in, line)) {
    std::istringstream words(line);
    std::string name;
    uint64_t value = 0;
    if (words >> name >> value && name == key) return value;
  }
  return std::nullopt;
}

/// The names that a version of control groups gives its files.
struct GroupFiles {
  const char* limit;
  const char* soft_limit;  // above it the system reclaims
  const char* usage;
  const char* cache_field;  // of memory.stat
};

void apply_group(const std::filesystem::path& group, const GroupFiles& files, std::optional<MemoryLimit>& tightest) {
  const uint64_t hard_bytes = read_number(group / files.limit).value_or(kNoLimitBytes);
  const uint64_t limit_bytes = std::min(hard_bytes, read_number(group / files.soft_limit).value_or(kNoLimitBytes));
  if (limit_bytes >= kNoLimitBytes) return;
  const uint64_t used_bytes = read_number(group / files.usage).value_or(0);
  const uint64_t cache_bytes = std::min(read_field(group / "memory.stat", files.cache_field).value_or(0), used_bytes);
  const uint64_t held_bytes = used_bytes - cache_bytes;
  const uint64_t left_bytes = limit_bytes > held_bytes ? limit_bytes - held_bytes : 0;
  const uint64_t over_bytes = held_bytes > limit_bytes ? held_bytes - limit_bytes : 0;
  if (!tightest) {
    tightest = MemoryLimit{limit_bytes, left_bytes, over_bytes};
  } else {
    tightest->limit_bytes = std::min(tightest->limit_bytes, limit_bytes);
    tightest->available_bytes = std::min(tightest->available_bytes, left_bytes);
    tightest->over_bytes = std::max(tightest->over_bytes, over_bytes);
  }
}

/// The group and all groups around it, up to the mount. In a container the path may be one that only the host sees;
/// then the mount itself is the container's group.
void apply_hierarchy(const std::filesystem::path& mount, const std::filesystem::path& group_path,
                     const GroupFiles& files, std::optional<MemoryLimit>& tightest) {
  std::filesystem::path group = group_path.relative_path();
  while (!group.empty()) {
    apply_group(mount / group, files, tightest);
    group = group.parent_path();
  }
  apply_group(mount, files, tightest);
}

}  // namespace

std::optional<MemoryLimit> read_memory_limit(const std::filesystem::path& process_groups,
                                             const std::filesystem::path& mount) {
  constexpr GroupFiles kVersion2 = {"memory.max", "memory.high", "memory.current", "inactive_file"};
  constexpr GroupFiles kVersion1 = {"memory.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.usage_in_bytes",
                                    "total_inactive_file"};
  std::optional<MemoryLimit> tightest;
  std::ifstream in(process_groups);
  std::string line;  // "hierarchy:controllers:path"; version 2 has hierarchy 0 and no controllers
  while (std::getline(in, line)) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::filesystem::path group_path = line.substr(second + 1);
    if (controllers == ",,") apply_hierarchy(mount, group_path, kVersion2, tightest);
    if (controllers.find(",memory,") != std::string::npos) {
      apply_hierarchy(mount / "memory", group_path, kVersion1, tightest);
    }
  }
  return tightest;
}

uint64_t available_ram_bytes(const std::optional<MemoryLimit>& limit, const std::filesystem::path& meminfo) {
  const uint64_t free_bytes = read_field(meminfo, "MemAvailable:").value_or(0) * 1024;
  return limit ? std::min(free_bytes, limit->available_bytes) : free_bytes;
}

uint64_t total_ram_bytes(const std::filesystem::path& meminfo) {
  return read_field(meminfo, "MemTotal:").value_or(0) * 1024;
}

}  // namespace moraine::offload

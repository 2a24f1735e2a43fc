#include "tools/bench_machine.h"

#include <algorithm>
#include <fstream>

#include "quant/error.h"

namespace moraine::tools {

std::string cpu_name(const std::filesystem::path& cpuinfo) {
  std::ifstream info(cpuinfo);
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return quant::printable(line.substr(colon + 2));
  }
  return "unknown";
}

uint64_t dram_buffer_bytes(uint64_t l3_bytes, uint64_t available_bytes) {
  constexpr uint64_t kSmallest = 3u << 29, kCacheMultiple = 4;
  return std::min(std::max(kSmallest, kCacheMultiple * l3_bytes), available_bytes / 4);
}

}  // namespace moraine::tools

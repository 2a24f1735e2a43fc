#include "tools/machine_spec.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <system_error>

#include "cpu/machine_limits.h"
#include "cpu/thread_pool.h"
#include "offload/disk_speed.h"
#include "offload/memory_limit.h"
#include "quant/error.h"
#include "quant/file_io.h"
#include "tools/bench_machine.h"
#include "tools/byte_size.h"

namespace moraine::tools {
namespace {

constexpr uint64_t kProbeBytes = 256u << 20;
constexpr uint64_t kProbeStepBytes = 4u << 20;

/// A file that lives as long as this.
class ProbeFile {
 public:
  explicit ProbeFile(const std::filesystem::path& directory)
      : path_(directory / fmt::format(".moraine-probe-{}", getpid())) {
    try {
      fill();
    } catch (...) {
      remove();
      throw;
    }
  }
  ~ProbeFile() { remove(); }
  ProbeFile(const ProbeFile&) = delete;
  ProbeFile& operator=(const ProbeFile&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  void fill() const {
    std::vector<uint64_t> words(kProbeStepBytes / sizeof(uint64_t));  // no zeros: drives may compress
    std::mt19937_64 random(1);
    std::generate(words.begin(), words.end(), random);
    const quant::UniqueFd file(open(path_.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600));
    if (!file) {
      throw quant::system_error(errno, "could not write a file to measure the drive with", path_,
                                "name a directory you may write to, or a speed, e.g. --nvme 7GB/s");
    }
    for (uint64_t offset = 0; offset < kProbeBytes; offset += kProbeStepBytes) {
      quant::pwrite_all(file.get(), std::as_bytes(std::span(words)), offset, path_);
    }
    quant::sync_file(file.get(), path_);
  }
  void remove() const {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }

  std::filesystem::path path_;
};

}  // namespace

MachineSpec spec_of(const offload::Topology& topology, std::optional<uint64_t> free_bytes) {
  MachineSpec spec;
  spec.core_count = topology.core_count;
  spec.numa_node_count = std::max<int>(1, static_cast<int>(topology.numa_nodes.size()));
  spec.room.ram_bytes = topology.ram_bytes;
  if (topology.memory_limit) {
    spec.room.ram_bytes = std::min(spec.room.ram_bytes, topology.memory_limit->available_bytes);
  }
  if (free_bytes) spec.room.ram_bytes = std::min(spec.room.ram_bytes, *free_bytes);
  spec.room.is_limited =
      topology.memory_limit.has_value() && topology.memory_limit->available_bytes <= spec.room.ram_bytes;
  return spec;
}

cpu::MachineLimits measure_compute(int threads, const offload::Topology& topology) {
  cpu::LimitSizes sizes;
  sizes.read_bytes = dram_buffer_bytes(topology.l3_bytes, offload::available_ram_bytes(topology.memory_limit));
  cpu::ThreadPool pool(threads);
  return cpu::measure_machine_limits(pool, sizes).fastest();
}

std::optional<double> measure_directory_gb_per_s(const std::filesystem::path& directory) {
  const ProbeFile probe(directory);
  const std::vector<std::filesystem::path> files = {probe.path()};
  return offload::measure_disk_gb_per_s(files);
}

std::optional<double> parse_speed_gb_per_s(std::string_view text) {
  constexpr std::string_view kPerSecond = "/s";
  if (!text.ends_with(kPerSecond)) return std::nullopt;
  const uint64_t bytes = parse_byte_size(text.substr(0, text.size() - kPerSecond.size()));
  if (bytes > 0) return static_cast<double>(bytes) / 1e9;
  throw quant::Error(quant::ErrorKind::kUsage, {.what = "a speed of 0", .item = quant::printable(text)});
}

}  // namespace moraine::tools

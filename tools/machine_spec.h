#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "offload/memory_plan.h"
#include "offload/topology.h"
#include "tools/bench_row.h"

namespace moraine::tools {

/// A machine as plans and simulations see it: measured, or as a person says. GB = 10⁹ bytes.
struct MachineSpec {
  offload::MemoryRoom room;      ///< what can be had
  BenchLimits limits;            ///< nothing where nothing is known; the disk's is that of all drives together
  double vram_gb_per_s = 900.0;  ///< read speed of the VRAM: assumed, a GPU is not measured yet
  int core_count = 0;
  int numa_node_count = 1;
};

/// The part of a machine that its topology tells: cores, nodes, and the RAM of all nodes within the control groups'
/// limit. `free_bytes`: what is free of it now; nothing: all.
MachineSpec spec_of(const offload::Topology& topology, std::optional<uint64_t> free_bytes = {});

/// The part that has to be measured: DRAM read and the matrix peaks, with so many threads. About 2 s.
cpu::MachineLimits measure_compute(int threads, const offload::Topology& topology);

/// How fast the drive under `directory` gives data, by a file of 256 MiB that is written there and removed again.
/// Nothing if the file system does not take O_DIRECT. Throws quant::Error if it can't be written.
std::optional<double> measure_directory_gb_per_s(const std::filesystem::path& directory);

/// "11GB/s" or "11 GiB/s" as 10⁹ bytes per second. Nothing if the text does not end like a speed. Throws
/// quant::Error(kUsage) if its number is none or 0.
std::optional<double> parse_speed_gb_per_s(std::string_view text);

}  // namespace moraine::tools

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

/// The share of each limit that steps reach: a prediction is the bound times it. The numbers here are those measured on
/// the 671B shapes (docs/benchmarks.md); what `moraine bench` finds on a machine takes their place there
/// (tools/machine_record.h).
struct ReachedShares {
  double decode_dram = 0.90;       ///< while decoding, of the DRAM read speed
  double prefill_dram = 0.46;      ///< in short prompts (128 tokens), of the DRAM read speed
  double prefill_int8 = 0.16;      ///< in long prompts (1024 tokens), of the peak of int8 products, AMX where there is
  double disk = 0.90;              ///< of what the drive gives the engine's own reader in a short measurement
  std::string measured_with = {};  ///< the model they were measured with on this machine; empty: those above

  bool operator==(const ReachedShares&) const = default;
};

/// A machine as plans and simulations see it: measured, or as a person says. GB = 10⁹ bytes.
struct MachineSpec {
  offload::MemoryRoom room;      ///< what can be had
  BenchLimits limits;            ///< nothing where nothing is known; the disk's is that of all drives together
  ReachedShares shares;          ///< of these limits
  double vram_gb_per_s = 900.0;  ///< read speed of the VRAM: taken as said or assumed, no GPU is measured
  double pcie_gb_per_s = 25.0;   ///< between RAM and VRAM, the same; PCIe 4.0 ×16
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

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "offload/memory_limit.h"

namespace moraine::offload {

/// A part of the machine whose cores share a memory controller.
struct NumaNode {
  int index = 0;  ///< as the system counts
  uint64_t ram_bytes = 0;
  std::vector<int> cpus = {};  ///< the system's numbers of its hardware threads, ascending
};

/// What this process may use of the machine.
struct Topology {
  int core_count = 0;  ///< physical
  int hardware_thread_count = 0;
  std::vector<int> first_cpus;  // [core_count] the system's number of each core's first hardware thread
  std::vector<NumaNode> numa_nodes;
  uint64_t ram_bytes = 0;                   ///< over all nodes
  uint64_t l2_bytes = 0;                    ///< of one L2; 0 if unknown
  uint64_t l3_bytes = 0;                    ///< of all L3 together; 0 if unknown
  std::optional<MemoryLimit> memory_limit;  ///< of the control groups around this process

  /// Asks hwloc; cores outside the process' affinity or cpuset are left out. Throws quant::Error(kIo) if it fails.
  static Topology detect();
  /// A machine made up for a test, in hwloc's words: "numa:2 l3:1 core:4 pu:2". Throws quant::Error(kUsage).
  static Topology synthetic(const std::string& description);

  /// Where `threads` workers run, the system's number of a core for each: spread over the nodes by their cores, those
  /// of a node side by side. Empty, which is to leave it to the system, on a machine of one node and for more workers
  /// than cores.
  std::vector<int> worker_cpus(int threads) const;

  /// One line for people.
  std::string text() const;
};

}  // namespace moraine::offload

#include "offload/topology.h"

#include <fmt/format.h>
#include <hwloc.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <memory>
#include <utility>

#include "quant/error.h"

namespace moraine::offload {
namespace {

struct DestroyTopology {
  void operator()(hwloc_topology* topology) const { hwloc_topology_destroy(topology); }
};
using TopologyHandle = std::unique_ptr<hwloc_topology, DestroyTopology>;

quant::Error hwloc_error(const std::string& what) {
  return quant::system_error(errno, what, {}, "report what `lstopo` says");
}

TopologyHandle init_topology() {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) throw hwloc_error("hwloc could not start");
  return TopologyHandle(raw);
}

/// Calls visit(object) for every object of that kind.
template <typename Visit>
void for_each(hwloc_topology_t topology, hwloc_obj_type_t type, Visit visit) {
  for (hwloc_obj_t object = hwloc_get_next_obj_by_type(topology, type, nullptr); object != nullptr;
       object = hwloc_get_next_obj_by_type(topology, type, object)) {
    visit(object);
  }
}

std::vector<int> cpus_of(hwloc_const_bitmap_t set) {
  std::vector<int> cpus;
  for (int cpu = hwloc_bitmap_first(set); cpu >= 0; cpu = hwloc_bitmap_next(set, cpu)) cpus.push_back(cpu);
  return cpus;
}

Topology read_topology(hwloc_topology_t handle) {
  Topology topology;
  for_each(handle, HWLOC_OBJ_PU, [&](hwloc_obj_t) { ++topology.hardware_thread_count; });
  for_each(handle, HWLOC_OBJ_CORE,
           [&](hwloc_obj_t core) { topology.first_cpus.push_back(hwloc_bitmap_first(core->cpuset)); });
  if (topology.first_cpus.empty()) {
    // Some virtual machines tell of no cores; every hardware thread counts as one.
    for_each(handle, HWLOC_OBJ_PU,
             [&](hwloc_obj_t thread) { topology.first_cpus.push_back(static_cast<int>(thread->os_index)); });
  }
  topology.core_count = static_cast<int>(topology.first_cpus.size());
  for_each(handle, HWLOC_OBJ_L2CACHE, [&](hwloc_obj_t cache) {
    topology.l2_bytes = std::max<uint64_t>(topology.l2_bytes, cache->attr->cache.size);
  });
  for_each(handle, HWLOC_OBJ_L3CACHE, [&](hwloc_obj_t cache) { topology.l3_bytes += cache->attr->cache.size; });
  for_each(handle, HWLOC_OBJ_NUMANODE, [&](hwloc_obj_t node) {
    topology.numa_nodes.push_back({.index = static_cast<int>(node->os_index),
                                   .ram_bytes = node->attr->numanode.local_memory,
                                   .cpus = cpus_of(node->cpuset)});
    topology.ram_bytes += node->attr->numanode.local_memory;
  });
  return topology;
}

}  // namespace

Topology Topology::detect() {
  const TopologyHandle handle = init_topology();
  constexpr unsigned long kOnlyOurCpus = HWLOC_TOPOLOGY_FLAG_RESTRICT_TO_CPUBINDING | HWLOC_TOPOLOGY_FLAG_IS_THISSYSTEM;
  if (hwloc_topology_set_flags(handle.get(), kOnlyOurCpus) != 0 || hwloc_topology_load(handle.get()) != 0) {
    throw hwloc_error("hwloc could not read the machine's topology");
  }
  Topology topology = read_topology(handle.get());
  topology.memory_limit = read_memory_limit();
  return topology;
}

Topology Topology::synthetic(const std::string& description) {
  const TopologyHandle handle = init_topology();
  if (hwloc_topology_set_synthetic(handle.get(), description.c_str()) != 0 || hwloc_topology_load(handle.get()) != 0) {
    throw quant::Error(quant::ErrorKind::kUsage, {.what = "no synthetic topology of hwloc", .item = description});
  }
  return read_topology(handle.get());
}

std::vector<int> Topology::worker_cpus(int threads) const {
  if (numa_nodes.size() < 2 || threads < 1 || threads > core_count) return {};
  std::vector<std::vector<int>> nodes;  // their cores' first hardware threads
  for (const NumaNode& node : numa_nodes) {
    std::vector<int>& cores = nodes.emplace_back();
    std::ranges::copy_if(first_cpus, std::back_inserter(cores),
                         [&](int cpu) { return std::ranges::binary_search(node.cpus, cpu); });
  }
  size_t cores_of_nodes = 0;
  for (const std::vector<int>& cores : nodes) cores_of_nodes += cores.size();
  if (cores_of_nodes != first_cpus.size()) return {};  // cores of no node, or of two: no such placement
  std::vector<int> cpus;
  int64_t cores_before = 0, placed = 0;
  for (const std::vector<int>& cores : nodes) {
    cores_before += std::ssize(cores);
    const int64_t placed_after = cores_before * threads / core_count;
    for (int64_t i = 0; placed < placed_after; ++i, ++placed) cpus.push_back(cores[static_cast<size_t>(i)]);
  }
  return cpus;
}

std::string Topology::text() const {
  constexpr double kMib = 1024.0 * 1024.0;
  const auto mib = [](uint64_t bytes) { return static_cast<double>(bytes) / kMib; };
  return fmt::format("{} cores, {} threads, {} NUMA node{}, {:.1f} GiB RAM{}, L2 {:.1f} MiB, L3 {:.0f} MiB", core_count,
                     hardware_thread_count, numa_nodes.size(), numa_nodes.size() == 1 ? "" : "s",
                     mib(ram_bytes) / 1024.0,
                     memory_limit ? fmt::format(" (limit {:.1f} GiB)", mib(memory_limit->limit_bytes) / 1024.0) : "",
                     mib(l2_bytes), mib(l3_bytes));
}

}  // namespace moraine::offload

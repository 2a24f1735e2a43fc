#include "offload/topology.h"

#include <gtest/gtest.h>

#include "quant/error.h"

namespace moraine::offload {
namespace {

TEST(Topology, ReadsThisMachine) {
  const Topology topology = Topology::detect();
  EXPECT_GE(topology.core_count, 1);
  EXPECT_GE(topology.hardware_thread_count, topology.core_count);
  EXPECT_EQ(topology.first_cpus.size(), static_cast<size_t>(topology.core_count));
  ASSERT_FALSE(topology.numa_nodes.empty());
  EXPECT_GT(topology.ram_bytes, 64u << 20);
  EXPECT_GT(available_ram_bytes(topology.memory_limit), 0u);
}

TEST(Topology, CountsTwoNodesOfFourCoresWithTwoThreads) {
  const Topology topology =
      Topology::synthetic("numa:2(memory=8589934592) l3:1(size=33554432) l2:4(size=1048576) core:1 pu:2");
  EXPECT_EQ(topology.core_count, 8);
  EXPECT_EQ(topology.hardware_thread_count, 16);
  EXPECT_EQ(topology.l2_bytes, 1u << 20);
  EXPECT_EQ(topology.l3_bytes, 64u << 20);
  ASSERT_EQ(topology.numa_nodes.size(), 2u);
  EXPECT_EQ(topology.numa_nodes[1].index, 1);
  EXPECT_EQ(topology.numa_nodes[1].cpus, (std::vector<int>{8, 9, 10, 11, 12, 13, 14, 15}));
  EXPECT_EQ(topology.ram_bytes, uint64_t{16} << 30);
  EXPECT_EQ(topology.first_cpus, (std::vector<int>{0, 2, 4, 6, 8, 10, 12, 14}));
  EXPECT_FALSE(topology.memory_limit);
  EXPECT_EQ(topology.text(), "8 cores, 16 threads, 2 NUMA nodes, 16.0 GiB RAM, L2 1.0 MiB, L3 64 MiB");
}

TEST(Topology, RefusesNonsense) {
  try {
    Topology::synthetic("no such machine");
    FAIL() << "accepted";
  } catch (const quant::Error& error) {
    EXPECT_EQ(error.kind(), quant::ErrorKind::kUsage);
  }
}

}  // namespace
}  // namespace moraine::offload

#include "offload/topology.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

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

TEST(Topology, PlacesWorkersOnTheCoresOfAllNodes) {
  const Topology two = Topology::synthetic("numa:2 core:4 pu:2");
  EXPECT_EQ(two.worker_cpus(8), (std::vector<int>{0, 2, 4, 6, 8, 10, 12, 14}));
  EXPECT_EQ(two.worker_cpus(4), (std::vector<int>{0, 2, 8, 10}));
  EXPECT_EQ(two.worker_cpus(3), (std::vector<int>{0, 8, 10}));
  EXPECT_EQ(two.worker_cpus(1), (std::vector<int>{8}));
  for (const int threads : {0, 9}) EXPECT_TRUE(two.worker_cpus(threads).empty()) << threads;
  const Topology three = Topology::synthetic("numa:3 core:2 pu:1");
  for (int threads = 1; threads <= 6; ++threads) {
    std::vector<int> cpus = three.worker_cpus(threads);
    ASSERT_EQ(std::ssize(cpus), threads);
    EXPECT_TRUE(std::ranges::is_sorted(cpus));
    EXPECT_EQ(std::ranges::adjacent_find(cpus), cpus.end());
    for (int node = 0; node < 3; ++node) {
      const auto here = std::ranges::count_if(cpus, [&](int cpu) { return cpu / 2 == node; });
      EXPECT_LE(std::abs(here * 3 - threads), 2) << threads;
    }
  }
}

TEST(Topology, LeavesOneNodeToTheSystem) {
  EXPECT_TRUE(Topology::synthetic("numa:1 core:4 pu:2").worker_cpus(4).empty());
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

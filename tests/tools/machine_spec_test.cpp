#include "tools/machine_spec.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "quant/error.h"
#include "support/temp_dir.h"

namespace moraine::tools {
namespace {

constexpr uint64_t kGib = 1u << 30;

TEST(MachineSpec, TwoSocketsOfFourNodesEach) {
  const auto topology =
      offload::Topology::synthetic("pack:2 numa:4(memory=51539607552) l3:1(size=33554432) core:8 pu:2");
  const MachineSpec spec = spec_of(topology);
  EXPECT_EQ(spec.numa_node_count, 8);
  EXPECT_EQ(spec.core_count, 64);
  EXPECT_EQ(spec.room.ram_bytes, 8 * 48 * kGib);
  EXPECT_EQ(spec_of(topology, 100 * kGib).room.ram_bytes, 100 * kGib);
}

TEST(MachineSpec, ALimitBindsMoreThanTheMachine) {
  auto topology = offload::Topology::synthetic("numa:1(memory=68719476736) core:4 pu:1");
  topology.memory_limit = offload::MemoryLimit{.limit_bytes = 8 * kGib, .available_bytes = 6 * kGib};
  EXPECT_EQ(spec_of(topology).room.ram_bytes, 6 * kGib);
  EXPECT_TRUE(spec_of(topology).room.is_limited);
  EXPECT_FALSE(spec_of(topology, 5 * kGib).room.is_limited) << "the machine has less to give than the limit allows";
}

TEST(MachineSpec, SpeedsAreBytesPerSecond) {
  EXPECT_EQ(parse_speed_gb_per_s("11GB/s"), 11.0);
  EXPECT_EQ(parse_speed_gb_per_s("1.5 GB/s"), 1.5);
  EXPECT_EQ(parse_speed_gb_per_s("/mnt/nvme"), std::nullopt);
  EXPECT_THROW(parse_speed_gb_per_s("fast/s"), quant::Error);
  EXPECT_THROW(parse_speed_gb_per_s("0GB/s"), quant::Error);
}

TEST(MachineSpec, ADriveIsMeasuredAndLeftAsItWas) {
  const testing::TempDir directory;
  const std::optional<double> speed = measure_directory_gb_per_s(directory.path());
  EXPECT_GT(speed.value_or(1.0), 0.01);
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
  EXPECT_THROW(measure_directory_gb_per_s(directory / "absent"), quant::Error);
}

}  // namespace
}  // namespace moraine::tools

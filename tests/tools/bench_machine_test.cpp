#include "tools/bench_machine.h"

#include <gtest/gtest.h>

#include "support/temp_dir.h"

namespace moraine::tools {
namespace {

TEST(CpuName, IsTheFirstModelName) {
  const testing::TempDir directory;
  const auto file = directory.write("cpuinfo", "processor\t: 0\nmodel name\t: Some CPU 9000\nmodel name\t: Other\n");
  EXPECT_EQ(cpu_name(file), "Some CPU 9000");
  EXPECT_EQ(cpu_name(directory.write("other", "processor\t: 0\nmodel name\n")), "unknown");
  EXPECT_EQ(cpu_name(directory / "missing"), "unknown");
}

TEST(DramBufferBytes, IsAboveTheCachesAndWithinTheFreeRam) {
  constexpr uint64_t kGiB = 1u << 30;
  EXPECT_EQ(dram_buffer_bytes(32u << 20, 64 * kGiB), kGiB * 3 / 2);
  EXPECT_EQ(dram_buffer_bytes(480u << 20, 64 * kGiB), 4 * (480u << 20));
  EXPECT_EQ(dram_buffer_bytes(480u << 20, 2 * kGiB), kGiB / 2);
  EXPECT_EQ(dram_buffer_bytes(0, 0), 0u);
}

}  // namespace
}  // namespace moraine::tools

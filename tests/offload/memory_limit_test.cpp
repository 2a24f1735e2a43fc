#include "offload/memory_limit.h"

#include <gtest/gtest.h>

#include <string_view>

#include "support/temp_dir.h"

namespace moraine::offload {
namespace {

/// A made-up /proc and /sys/fs/cgroup.
class MemoryLimitTest : public ::testing::Test {
 protected:
  void put(std::string_view name, std::string_view text) const {
    std::filesystem::create_directories((dir_ / name).parent_path());
    dir_.write(name, text);
  }
  std::optional<MemoryLimit> read() const { return read_memory_limit(dir_ / "cgroup", dir_ / "sys"); }

  testing::TempDir dir_;
};

TEST_F(MemoryLimitTest, NoGroupsNoLimit) {
  EXPECT_FALSE(read());
}

TEST_F(MemoryLimitTest, MaxIsNoLimit) {
  put("cgroup", "0::/job\n");
  put("sys/job/memory.max", "max\n");
  EXPECT_FALSE(read());
}

TEST_F(MemoryLimitTest, TheTightestGroupAroundCounts) {
  put("cgroup", "0::/outer/job\n");
  put("sys/outer/job/memory.max", "8000\n");
  put("sys/outer/job/memory.current", "1000\n");
  put("sys/outer/memory.max", "9000\n");
  put("sys/outer/memory.current", "5000\n");
  put("sys/outer/memory.stat", "anon 1\ninactive_file 500\n");
  const std::optional<MemoryLimit> limit = read();
  ASSERT_TRUE(limit);
  EXPECT_EQ(limit->limit_bytes, 8000u);
  EXPECT_EQ(limit->available_bytes, 4500u) << "the outer group holds 4500 bytes that are no file cache";
}

TEST_F(MemoryLimitTest, InAContainerTheMountItselfIsTheGroup) {
  put("cgroup", "0::/only/the/host/sees/this\n");
  put("sys/memory.max", "5000\n");
  put("sys/memory.current", "6000\n");
  const std::optional<MemoryLimit> limit = read();
  ASSERT_TRUE(limit);
  EXPECT_EQ(limit->limit_bytes, 5000u);
  EXPECT_EQ(limit->available_bytes, 0u);
  EXPECT_EQ(limit->over_bytes, 1000u);
}

TEST_F(MemoryLimitTest, ASoftLimitIsALimit) {
  put("cgroup", "0::/job\n");
  put("sys/job/memory.max", "max\n");
  put("sys/job/memory.high", "4000\n");
  put("sys/job/memory.current", "1000\n");
  ASSERT_TRUE(read());
  EXPECT_EQ(read()->limit_bytes, 4000u);
  EXPECT_EQ(read()->available_bytes, 3000u);
  EXPECT_EQ(read()->over_bytes, 0u);
  put("sys/job/memory.max", "3000\n");
  EXPECT_EQ(read()->limit_bytes, 3000u);
}

TEST_F(MemoryLimitTest, ReadsVersionOne) {
  put("cgroup", "5:cpu,cpuacct:/x\n4:memory:/job\n");
  put("sys/memory/job/memory.limit_in_bytes", "7000\n");
  put("sys/memory/job/memory.usage_in_bytes", "100\n");
  put("sys/memory/memory.limit_in_bytes", "9223372036854771712\n");
  const std::optional<MemoryLimit> limit = read();
  ASSERT_TRUE(limit);
  EXPECT_EQ(limit->limit_bytes, 7000u);
  EXPECT_EQ(limit->available_bytes, 6900u);
}

TEST_F(MemoryLimitTest, GarbageLimitsNothing) {
  put("cgroup", "garbage\n0:\n0::/job\n");
  put("sys/job/memory.max", "-12x\n");
  EXPECT_FALSE(read());
}

TEST_F(MemoryLimitTest, AvailableIsTheSmallerOfFreeAndLimit) {
  put("meminfo", "MemTotal:  100 kB\nMemFree: 1 kB\nMemAvailable:   50 kB\n");
  EXPECT_EQ(available_ram_bytes(std::nullopt, dir_ / "meminfo"), 51200u);
  EXPECT_EQ(available_ram_bytes(MemoryLimit{9000, 4000}, dir_ / "meminfo"), 4000u);
  EXPECT_EQ(available_ram_bytes(std::nullopt, dir_ / "absent"), 0u);
}

}  // namespace
}  // namespace moraine::offload

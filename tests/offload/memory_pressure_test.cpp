#include "offload/memory_pressure.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/temp_dir.h"

namespace moraine::offload {
namespace {

constexpr uint64_t kMiB = 1u << 20;

/// A made-up machine of 64 GiB, this process in the version 2 control group /job.
class MemoryPressureTest : public ::testing::Test {
 protected:
  MemoryPressureTest() {
    std::filesystem::create_directories(dir_ / "sys/job");
    dir_.write("cgroup", "0::/job\n");
    set_available(32 * 1024 * kMiB);
    set_psi("psi", 0);
    set_psi("sys/job/memory.pressure", 0);
  }

  void set_available(uint64_t bytes) const {
    dir_.write("meminfo", fmt::format("MemTotal: {} kB\nMemAvailable: {} kB\n", 64 * kMiB, bytes / 1024));
  }
  void set_psi(const char* name, uint64_t total_us) const {
    dir_.write(name, fmt::format("some avg10=0.00 avg60=0.00 avg300=0.00 total={}\nfull avg10=0.00 avg60=0.00 "
                                 "avg300=0.00 total=999999999\n",
                                 total_us));
  }
  void set_group(uint64_t limit, uint64_t used) const {
    dir_.write("sys/job/memory.max", fmt::format("{}\n", limit));
    dir_.write("sys/job/memory.current", fmt::format("{}\n", used));
  }
  SystemPressure pressure() const {
    return SystemPressure({dir_ / "psi", dir_ / "meminfo", dir_ / "cgroup", dir_ / "sys"});
  }
  /// What is asked of a holder of 1000 MiB, `ms` after the first call.
  static uint64_t excess(SystemPressure& pressure, int ms) {
    return pressure.excess_bytes_at(1000 * kMiB, std::chrono::steady_clock::time_point(std::chrono::milliseconds(ms)));
  }

  testing::TempDir dir_;
};

TEST_F(MemoryPressureTest, AQuietMachineAsksForNothing) {
  SystemPressure quiet = pressure();
  EXPECT_EQ(excess(quiet, 0), 0u);
  set_psi("psi", 9'000);
  set_psi("sys/job/memory.pressure", 9'000);
  EXPECT_EQ(excess(quiet, 100), 0u) << "9 % of the time";
}

TEST_F(MemoryPressureTest, StallsOfTheGroupAskForATwentieth) {
  set_psi("sys/job/memory.pressure", 5'000'000);
  SystemPressure stalled = pressure();
  EXPECT_EQ(excess(stalled, 0), 0u) << "what was before the first call is history";
  set_psi("sys/job/memory.pressure", 5'020'000);
  EXPECT_EQ(excess(stalled, 100), 50 * kMiB);
  EXPECT_EQ(excess(stalled, 200), 0u) << "it is over";
}

TEST_F(MemoryPressureTest, StallsOfOthersCountOnlyWhereMemoryIsShort) {
  SystemPressure stalled = pressure();
  excess(stalled, 0);
  set_psi("psi", 50'000);
  EXPECT_EQ(excess(stalled, 100), 0u) << "half the RAM is available: somebody stalls under a limit of his own";
  set_psi("psi", 100'000);
  set_available(2 * 1024 * kMiB);
  EXPECT_EQ(excess(stalled, 200), 50 * kMiB);
}

TEST_F(MemoryPressureTest, TheRoomUnderALimitKeepsAMargin) {
  set_group(6400 * kMiB, 6000 * kMiB);
  SystemPressure limited = pressure();
  EXPECT_EQ(excess(limited, 0), 0u);
  set_group(6400 * kMiB, 6370 * kMiB);
  EXPECT_EQ(excess(limited, 100), 70 * kMiB) << "100 MiB are the margin, 30 are left";
  set_group(64 * kMiB, 64 * kMiB);
  EXPECT_EQ(excess(limited, 200), kMiB);
}

TEST_F(MemoryPressureTest, TheSystemsRoomKeepsAMargin) {
  set_available(200 * kMiB);
  SystemPressure full = pressure();
  EXPECT_EQ(excess(full, 0), 56 * kMiB);
  set_available(0);
  EXPECT_EQ(full.excess_bytes_at(10, {}), 10u) << "never more than there is";
}

TEST_F(MemoryPressureTest, SparesNothingUntilAllHasBeenQuietForTenSeconds) {
  set_group(6400 * kMiB, 5000 * kMiB);
  SystemPressure limited = pressure();
  EXPECT_EQ(limited.spare_bytes(kMiB), 0u) << "never asked before";
  excess(limited, 0);
  excess(limited, 9'900);
  EXPECT_EQ(limited.spare_bytes(kMiB), 0u);
  excess(limited, 10'000);
  EXPECT_EQ(limited.spare_bytes(kMiB), 100 * kMiB) << "a 64th of the limit";
  EXPECT_EQ(limited.spare_bytes(kMiB), 0u) << "not at once again";
  excess(limited, 11'000);
  EXPECT_EQ(limited.spare_bytes(kMiB), 100 * kMiB);

  set_psi("sys/job/memory.pressure", 2'000);
  excess(limited, 11'100);
  EXPECT_EQ(limited.spare_bytes(kMiB), 0u) << "2 % of the time stalled: not enough to shrink, too much to grow";
  excess(limited, 21'000);
  EXPECT_EQ(limited.spare_bytes(kMiB), 0u);
  excess(limited, 21'200);
  EXPECT_EQ(limited.spare_bytes(kMiB), 100 * kMiB);
}

TEST_F(MemoryPressureTest, GrowsOnlyIntoWhatLiesBeyondFourMargins) {
  set_group(6400 * kMiB, 5970 * kMiB);
  SystemPressure limited = pressure();
  excess(limited, 0);
  excess(limited, 20'000);
  EXPECT_EQ(limited.spare_bytes(kMiB), 30 * kMiB) << "430 MiB are left, four margins are 400";
  set_group(6400 * kMiB, 6000 * kMiB);
  excess(limited, 30'000);
  EXPECT_EQ(limited.spare_bytes(kMiB), 0u);
  set_group(6400 * kMiB, 5000 * kMiB);
  EXPECT_EQ(limited.spare_bytes(250 * kMiB), 250 * kMiB) << "one unit, however large";
  excess(limited, 40'000);
  set_available(1100 * kMiB);
  EXPECT_EQ(limited.spare_bytes(kMiB), 76 * kMiB) << "the system's own margins are 1024";
  excess(limited, 50'000);
  EXPECT_EQ(limited.spare_bytes(100 * kMiB), 0u) << "less than a unit";
}

TEST_F(MemoryPressureTest, ALimitThatReturnsLetsItGrow) {
  set_group(6400 * kMiB, 6000 * kMiB);
  dir_.write("sys/job/memory.high", fmt::format("{}\n", 3200 * kMiB));
  SystemPressure limited = pressure();
  EXPECT_EQ(limited.excess_bytes_at(6000 * kMiB, {}), 2850 * kMiB) << "what lies above memory.high, and the margin";
  set_group(6400 * kMiB, 3000 * kMiB);
  EXPECT_EQ(excess(limited, 1'000), 0u);
  excess(limited, 12'000);
  EXPECT_EQ(limited.spare_bytes(kMiB), 0u) << "200 MiB are four margins";
  dir_.write("sys/job/memory.high", "max\n");
  excess(limited, 12'100);
  EXPECT_EQ(limited.spare_bytes(kMiB), 100 * kMiB);
}

TEST_F(MemoryPressureTest, WhatCannotBeReadAsksForNothing) {
  SystemPressure blind({"/nowhere/psi", "/nowhere/meminfo", "/nowhere/cgroup", "/nowhere"});
  EXPECT_EQ(excess(blind, 0), 0u);
  EXPECT_EQ(excess(blind, 100), 0u);
  EXPECT_EQ(excess(blind, 20'000), 0u);
  EXPECT_EQ(blind.spare_bytes(1), 0u);
  dir_.write("psi", "some total=nonsense");
  SystemPressure garbled = pressure();
  EXPECT_EQ(excess(garbled, 0), 0u);
}

}  // namespace
}  // namespace moraine::offload

#include "cpu/machine_limits.h"

#include <gtest/gtest.h>

#include "cpu/isa.h"

namespace moraine::cpu {
namespace {

/// A minute's measurement in some milliseconds; the numbers still have the right order of magnitude.
constexpr LimitSizes kSmall{.read_bytes = 48u << 20, .tokens = 32, .cols = 512, .rows = 256, .max_s = 0.01};

TEST(MachineLimits, ArePlausible) {
  for (const int threads : {1, 2}) {
    ThreadPool pool(threads);
    const MachineLimits limits = measure_machine_limits(pool, kSmall).fastest();
    ASSERT_TRUE(limits.dram_read_gb_per_s);
    EXPECT_GT(*limits.dram_read_gb_per_s, 0.05);
    EXPECT_LT(*limits.dram_read_gb_per_s, 1e5);
    for (const auto& gflop_per_s : {limits.int8_gflop_per_s, limits.bf16_gflop_per_s}) {
      // oneDNN has code of its own for both from AVX-512 on; an older processor may have none.
      EXPECT_TRUE(gflop_per_s || !isa_available(Isa::kAvx512));
      if (!gflop_per_s) continue;
      EXPECT_GT(*gflop_per_s, 0.05);
      EXPECT_LT(*gflop_per_s, 1e6);
    }
  }
}

TEST(MachineLimits, ASmallBufferIsOneTask) {
  ThreadPool pool(2);
  const std::vector<double> passes = measure_dram_read_gb_per_s(pool, {.read_bytes = 1, .max_s = 0.0});
  ASSERT_EQ(passes.size(), 1u);
  EXPECT_GT(passes[0], 0.0);
}

TEST(LimitSamples, HaveAFastestAndAMedianRun) {
  LimitSamples samples{.dram_read_gb_per_s = {30.0, 34.0, 31.0}, .int8_gflop_per_s = {900.0}};
  samples += {.dram_read_gb_per_s = {33.0}, .int8_gflop_per_s = {1000.0, 1100.0}};
  EXPECT_EQ(samples.fastest().dram_read_gb_per_s, 34.0);
  EXPECT_EQ(samples.median().dram_read_gb_per_s, 32.0);
  EXPECT_EQ(samples.fastest().int8_gflop_per_s, 1100.0);
  EXPECT_EQ(samples.median().int8_gflop_per_s, 1000.0);
  EXPECT_FALSE(samples.fastest().bf16_gflop_per_s || samples.median().bf16_gflop_per_s) << "never measured";
}

}  // namespace
}  // namespace moraine::cpu

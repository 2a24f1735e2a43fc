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
    const MachineLimits limits = measure_machine_limits(pool, kSmall);
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
  EXPECT_GT(measure_dram_read_gb_per_s(pool, {.read_bytes = 1, .max_s = 0.0}), 0.0);
}

}  // namespace
}  // namespace moraine::cpu

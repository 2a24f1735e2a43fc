#include "tools/bench_row.h"

#include <gtest/gtest.h>

namespace moraine::tools {
namespace {

TEST(Spread, IsTheMiddleAndTheEnds) {
  const Spread odd = Spread::of({3.0, 1.0, 10.0});
  EXPECT_EQ(odd.median, 3.0);
  EXPECT_EQ(odd.min, 1.0);
  EXPECT_EQ(odd.max, 10.0);
  EXPECT_EQ(Spread::of({4.0, 1.0, 2.0, 9.0}).median, 3.0);
  EXPECT_EQ(Spread::of({5.0}).median, 5.0);
}

TEST(BenchLimits, OfARowAreThoseMeasuredBesideIt) {
  const BenchLimits best{.compute = {.dram_read_gb_per_s = 40.0, .int8_gflop_per_s = 1000.0}, .disk_gb_per_s = 2.0};
  const BenchLimits beside = limits_beside({.beside = {.dram_read_gb_per_s = 36.0, .bf16_gflop_per_s = 400.0}}, best);
  EXPECT_EQ(beside.compute.dram_read_gb_per_s, 36.0);
  EXPECT_EQ(beside.compute.int8_gflop_per_s, 1000.0) << "not measured beside the row";
  EXPECT_EQ(beside.compute.bf16_gflop_per_s, 400.0);
  EXPECT_EQ(beside.disk_gb_per_s, 2.0);
}

/// Beside it the drive gave 1 GB/s.
BenchRow row(BenchTest test, const Cost& cost, double bytes_missed = 0.0) {
  BenchRow made{.test = test, .bytes_missed = bytes_missed, .disk_gb_per_s = 1.0};
  made.costs[LayerKind::kShared] = {.weight_bytes = cost.weight_bytes};
  made.costs[LayerKind::kAttention] = {.flop = cost.flop, .context_flop = cost.context_flop};
  return made;
}

void expect_bound(const BenchRow& of, const BenchLimits& limits, const std::string& limit, double tokens_per_s) {
  const std::optional<Bound> bound = bound_of(of, limits);
  ASSERT_TRUE(bound);
  EXPECT_EQ(bound->limit, limit);
  EXPECT_DOUBLE_EQ(bound->tokens_per_s, tokens_per_s);
}

constexpr BenchLimits kLimits{
    .compute = {.dram_read_gb_per_s = 40.0, .int8_gflop_per_s = 2000.0, .bf16_gflop_per_s = 1000.0},
    .disk_gb_per_s = 9.0};  // the drive at its best bounds no row

TEST(Bound, OfDecodingIsWeightsAndThenAttention) {
  expect_bound(row(BenchTest::kDecode, {.weight_bytes = 2e9}), kLimits, "dram", 20.0);
  // 50 ms for the weights, then 50 ms for 50 GFLOP; products with weights hide behind their reading.
  expect_bound(row(BenchTest::kDecode, {.weight_bytes = 2e9, .flop = 90e9, .context_flop = 50e9}), kLimits, "dram",
               10.0);
  expect_bound(row(BenchTest::kDecode, {.weight_bytes = 2e9, .flop = 450e9, .context_flop = 450e9}), kLimits, "bf16",
               2.0);
}

TEST(Bound, OfPrefillIsTheSlowerOfBytesAndProducts) {
  expect_bound(row(BenchTest::kPrefill, {.weight_bytes = 0.2e9, .flop = 4e9, .context_flop = 1e9}), kLimits, "dram",
               200.0);
  expect_bound(row(BenchTest::kPrefill, {.weight_bytes = 0.02e9, .flop = 4e9, .context_flop = 1e9}), kLimits, "int8",
               500.0);
}

TEST(Bound, IsTheDiskWhereExpertsComeFromIt) {
  expect_bound(row(BenchTest::kDecode, {.weight_bytes = 2e9}, 0.5e9), kLimits, "disk", 2.0);
  expect_bound(row(BenchTest::kDecode, {.weight_bytes = 2e9}, 0.01e9), kLimits, "dram", 20.0);
  expect_bound(row(BenchTest::kPrefill, {.weight_bytes = 2e9, .flop = 4e9}, 0.5e9), kLimits, "disk", 2.0);
}

TEST(Bound, CountsWhatWasMissedAndNotWhatHintsReadForNothing) {
  BenchRow of = row(BenchTest::kDecode, {.weight_bytes = 2e9}, 0.4e9);
  of.bytes_read = 0.5e9;
  of.bytes_wasted = 0.1e9;
  expect_bound(of, kLimits, "disk", 2.5);
}

TEST(Bound, IgnoresWhatWasNotMeasured) {
  const Cost cost{.weight_bytes = 2e9, .flop = 50e9, .context_flop = 50e9};
  const auto unmeasured = [&](BenchTest test) {
    BenchRow made = row(test, cost, 1e9);
    made.disk_gb_per_s.reset();
    return made;
  };
  expect_bound(unmeasured(BenchTest::kDecode), {.compute = {.dram_read_gb_per_s = 40.0}}, "dram", 20.0);
  EXPECT_FALSE(bound_of(unmeasured(BenchTest::kDecode), {}));
  EXPECT_FALSE(bound_of(unmeasured(BenchTest::kPrefill), {}));
}

}  // namespace
}  // namespace moraine::tools

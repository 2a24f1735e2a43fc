#include "tools/machine_record.h"

#include <gtest/gtest.h>

#include <fstream>

#include "support/temp_dir.h"

namespace moraine::tools {
namespace {

/// A run of `moraine bench` on a machine that reads 100 GB/s and multiplies at 10 TFLOP/s: 2 GB and 4 GFLOP per token.
BenchReport report() {
  BenchReport made{.model = "big"};
  made.token.weight_bytes = 2e9;
  made.limits = {.compute = {.dram_read_gb_per_s = 100.0, .int8_gflop_per_s = 10000.0, .bf16_gflop_per_s = 5000.0},
                 .disk_gb_per_s = 2.0};
  return made;
}

BenchRow row(BenchTest test, int64_t tokens, double weight_bytes, double flop, double tokens_per_s) {
  BenchRow made{.test = test, .tokens = tokens, .tokens_per_s = Spread::of({tokens_per_s})};
  made.costs[LayerKind::kAttention] = {.weight_bytes = weight_bytes, .flop = flop};
  return made;
}

TEST(MachineRecord, SharesAreThoseOfTheRowsThatTheLimitBinds) {
  BenchReport measured = report();
  measured.rows = {row(BenchTest::kPrefill, 128, 1e9, 4e9, 60.0),     // DRAM allows 100
                   row(BenchTest::kPrefill, 1024, 1e7, 4e9, 1000.0),  // int8 allows 2500
                   row(BenchTest::kPrefill, 8192, 1e7, 4e9, 1500.0),  // further from a prompt of 1024
                   row(BenchTest::kDecode, 64, 2e9, 4e9, 45.0)};      // DRAM allows 50
  const ReachedShares shares = with_measured({}, measured);
  EXPECT_DOUBLE_EQ(shares.prefill_dram, 0.6);
  EXPECT_DOUBLE_EQ(shares.prefill_int8, 0.4);
  EXPECT_DOUBLE_EQ(shares.decode_dram, 0.9);
  EXPECT_EQ(shares.measured_with, "big");
}

TEST(MachineRecord, ModelsInTheCachesSayNothing) {
  BenchReport small = report();
  small.token.weight_bytes = 4e6;
  small.rows = {row(BenchTest::kDecode, 64, 4e6, 8e6, 90000.0)};
  EXPECT_EQ(with_measured({}, small), ReachedShares());
}

TEST(MachineRecord, NoShareIsMoreThanTheWhole) {
  BenchReport fast = report();
  fast.rows = {row(BenchTest::kDecode, 64, 2e9, 4e9, 70.0)};
  EXPECT_EQ(with_measured({}, fast).decode_dram, 1.0);
}

TEST(MachineRecord, IsReadAsItWasWritten) {
  const testing::TempDir dir;
  const auto file = dir / "made" / "machine.json";
  const MachineRecord written{.limits = {.compute = report().limits.compute},
                              .shares = {.decode_dram = 0.7, .prefill_int8 = 0.3, .measured_with = "big"}};
  write_machine_record(file, "a CPU", 8, written);
  const auto read = read_machine_record(file, "a CPU", 8);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->shares, written.shares);
  EXPECT_EQ(read->limits.compute.dram_read_gb_per_s, 100.0);
  EXPECT_FALSE(read->limits.disk_gb_per_s);
  EXPECT_FALSE(read_machine_record(file, "another CPU", 8));
  EXPECT_FALSE(read_machine_record(file, "a CPU", 4));
}

TEST(MachineRecord, WhatIsNoRecordIsNone) {
  const testing::TempDir dir;
  const auto file = dir / "machine.json";
  EXPECT_FALSE(read_machine_record(file, "a CPU", 8)) << "there is none";
  EXPECT_FALSE(read_machine_record({}, "a CPU", 8));
  for (const char* text : {"", "{", "[]", "{}", R"({"machine":3})", R"({"machine":{"cpu":["a CPU"],"cores":"8"}})"}) {
    std::ofstream(file) << text;
    EXPECT_FALSE(read_machine_record(file, "a CPU", 8)) << text;
  }
  std::ofstream(file) << R"({"machine":{"cpu":"a CPU","cores":8},"limits":{"dram_read_gb_per_s":-1},)"
                         R"("shares":{"decode_dram":1e300,"prefill_dram":"fast","prefill_int8":0}})";
  const auto odd = read_machine_record(file, "a CPU", 8);
  ASSERT_TRUE(odd);
  EXPECT_FALSE(odd->limits.compute.dram_read_gb_per_s);
  EXPECT_EQ(odd->shares, (ReachedShares{.decode_dram = 1.0})) << "nonsense is left out";
}

TEST(MachineRecord, APlaceThatCannotBeWrittenIsNoError) {
  write_machine_record("/proc/moraine/machine.json", "a CPU", 8, {});
  write_machine_record({}, "a CPU", 8, {});
}

}  // namespace
}  // namespace moraine::tools

#include "tools/bench_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace moraine::tools {
namespace {

BenchReport sample() {
  BenchRow decode{.test = BenchTest::kDecode,
                  .tokens = 64,
                  .context = 8192,
                  .threads = 2,
                  .tokens_per_s = {.median = 10.0, .min = 9.5, .max = 10.5},
                  .wait_s = 0.01,
                  .total_s = 0.1,
                  .bytes_read = 1e6,
                  .bytes_missed = 8e5,
                  .disk_busy_s = 0.08,
                  .bytes_wasted = 1e5,
                  .expert_hit_rate = 0.75,
                  .disk_gb_per_s = 1.5,
                  .beside = {.dram_read_gb_per_s = 25.0}};
  decode.costs[LayerKind::kRouted] = {.weight_bytes = 1.5e9, .flop = 3e9};
  decode.costs[LayerKind::kAttention] = {.weight_bytes = 0.5e9, .flop = 1e9};
  decode.seconds[LayerKind::kRouted] = 0.05;
  decode.seconds[LayerKind::kAttention] = 0.025;
  BenchRow prefill{.test = BenchTest::kPrefill,
                   .tokens = 128,
                   .threads = 2,
                   .tokens_per_s = {.median = 200.0, .min = 190.0, .max = 210.0},
                   .total_s = 0.005};
  prefill.costs[LayerKind::kShared] = {.weight_bytes = 1e7, .flop = 4e9};
  prefill.seconds[LayerKind::kShared] = 0.004;
  return {.cpu = "Some CPU",
          .cores = 2,
          .isa = "avx512",
          .model = "m",
          .token = {.weight_bytes = 2e9, .flop = 4e9},
          .limits = {.compute = {.dram_read_gb_per_s = 40.0, .int8_gflop_per_s = 1000.0}, .disk_gb_per_s = {}},
          .rows = {decode, prefill}};
}

TEST(BenchJson, IsTheObjectOfTheDesign) {
  const quant::Json expected = quant::Json::parse(R"({
    "machine": {"cpu": "Some CPU", "cores": 2, "isa": "avx512"},
    "model": {"name": "m", "bytes_per_token": 2e9, "flop_per_token": 4e9},
    "limits": {"dram_read_gb_per_s": 40.0, "int8_gflop_per_s": 1000.0, "bf16_gflop_per_s": null, "disk_gb_per_s": null},
    "rows": [
      {"test": "decode", "tokens": 64, "context": 8192, "threads": 2,
       "tokens_per_s": {"median": 10.0, "min": 9.5, "max": 10.5}, "weight_bytes_per_token": 2e9,
       "bytes_read_per_token": 1e6, "bytes_missed_per_token": 8e5, "bytes_wasted_per_token": 1e5, "disk_gb_per_s": 1.5, "expert_hit_rate": 0.75,
       "limits": {"dram_read_gb_per_s": 25.0, "int8_gflop_per_s": null, "bf16_gflop_per_s": null},
       "bound": "dram", "fraction_of_bound": 0.8, "fraction_of_best": 0.5},
      {"test": "prefill", "tokens": 128, "context": 0, "threads": 2,
       "tokens_per_s": {"median": 200.0, "min": 190.0, "max": 210.0}, "weight_bytes_per_token": 1e7,
       "bytes_read_per_token": 0.0, "bytes_missed_per_token": 0.0, "bytes_wasted_per_token": 0.0, "disk_gb_per_s": null, "expert_hit_rate": null,
       "limits": {"dram_read_gb_per_s": null, "int8_gflop_per_s": null, "bf16_gflop_per_s": null},
       "bound": "int8", "fraction_of_bound": 0.8, "fraction_of_best": 0.8}]})");
  EXPECT_EQ(bench_json(sample()), expected) << bench_json(sample()).dump(1);
}

TEST(BenchJson, HasNoBoundWithoutLimits) {
  BenchReport report = sample();
  report.limits = {};
  report.rows[0].disk_gb_per_s.reset();
  report.rows[0].beside = {};
  const quant::Json json = bench_json(report);
  EXPECT_TRUE(json["rows"][0]["bound"].is_null());
  EXPECT_TRUE(json["rows"][0]["fraction_of_bound"].is_null());
  EXPECT_TRUE(json["limits"]["dram_read_gb_per_s"].is_null());
}

/// The one line of `text` that begins with `begin`, spaces before it left out.
std::string line_of(const std::string& text, const std::string& begin) {
  std::string found;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    const size_t first = line.find_first_not_of(' ');
    if (found.empty() && first != std::string::npos && line.compare(first, begin.size(), begin) == 0) found = line;
    at = end + 1;
  }
  return found;
}

TEST(BenchTable, ShowsRowsWithTheirParts) {
  using ::testing::HasSubstr;
  const std::string table = bench_table(sample());
  EXPECT_THAT(table, HasSubstr("DRAM read 40.00 GB/s, int8 1000 GFLOP/s, bf16 not measured, disk not measured"));
  EXPECT_THAT(line_of(table, "decode"),
              HasSubstr("12.50 t/s (dram): 80.0 %; DRAM read beside it 25.00 GB/s, 50.0 % of the run's best;"));
  EXPECT_THAT(line_of(table, "decode"), HasSubstr("0.0008 GB/token missed, 0.0010 read, 0.0001 for nothing; reading "
                                                  "80.0 % of the time; disk 1.50 GB/s, hits 75.0 %"));
  EXPECT_THAT(line_of(table, "routed"), HasSubstr("50.000 ms/token   50.0 %"));
  EXPECT_THAT(line_of(table, "routed"), HasSubstr("30.00 GB/s"));
  EXPECT_THAT(line_of(table, "attention"), HasSubstr("20.00 GB/s"));
  EXPECT_THAT(line_of(table, "wait for experts"), HasSubstr("10.000 ms/token   10.0 %"));
  EXPECT_THAT(line_of(table, "everything else"), HasSubstr("15.000 ms/token   15.0 %"));
  EXPECT_THAT(line_of(table, "prefill"), HasSubstr("250.00 t/s (int8): 80.0 %"));
  EXPECT_THAT(line_of(table, "shared"), HasSubstr("1000 GFLOP/s"));
  EXPECT_EQ(line_of(table, "head"), "") << "parts that do not exist are left out";
}

}  // namespace
}  // namespace moraine::tools

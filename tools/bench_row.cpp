#include "tools/bench_row.h"

#include <algorithm>

#include "quant/error.h"

namespace moraine::tools {
namespace {

/// Seconds for an amount at a rate of so many 10⁹ per second; 0 if the rate is unknown.
double seconds_at(double amount, const std::optional<double>& giga_per_s) {
  return giga_per_s ? amount / (*giga_per_s * 1e9) : 0.0;
}

}  // namespace

Spread Spread::of(const std::vector<double>& values) {
  MORAINE_CHECK(!values.empty());
  const auto [min, max] = std::minmax_element(values.begin(), values.end());
  return {.median = *cpu::median_of(values), .min = *min, .max = *max};
}

BenchLimits limits_beside(const BenchRow& row, const BenchLimits& best) {
  const auto or_best = [](const std::optional<double>& beside, const std::optional<double>& of_run) {
    return beside ? beside : of_run;
  };
  return {.compute = {.dram_read_gb_per_s = or_best(row.beside.dram_read_gb_per_s, best.compute.dram_read_gb_per_s),
                      .int8_gflop_per_s = or_best(row.beside.int8_gflop_per_s, best.compute.int8_gflop_per_s),
                      .bf16_gflop_per_s = or_best(row.beside.bf16_gflop_per_s, best.compute.bf16_gflop_per_s)},
          .disk_gb_per_s = best.disk_gb_per_s};
}

std::optional<Bound> bound_of(const BenchRow& row, const BenchLimits& limits) {
  const Cost cost = total_of(row.costs);
  const double dram_s = seconds_at(cost.weight_bytes, limits.compute.dram_read_gb_per_s);
  const double disk_s = seconds_at(row.bytes_missed, row.disk_gb_per_s);
  double bound_s = 0.0;
  const char* limit = "";
  if (row.test == BenchTest::kDecode) {
    const double attention_s = seconds_at(cost.context_flop, limits.compute.bf16_gflop_per_s);
    bound_s = dram_s + attention_s;
    limit = attention_s > dram_s ? "bf16" : "dram";
  } else {
    const double product_s = seconds_at(cost.flop, limits.compute.int8_gflop_per_s);
    bound_s = std::max(dram_s, product_s);
    limit = product_s > dram_s ? "int8" : "dram";
  }
  if (disk_s > bound_s) {
    bound_s = disk_s;
    limit = "disk";
  }
  if (bound_s <= 0.0) return std::nullopt;
  return Bound{.limit = limit, .tokens_per_s = 1.0 / bound_s};
}

}  // namespace moraine::tools

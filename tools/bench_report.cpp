#include "tools/bench_report.h"

#include <fmt/format.h>

namespace moraine::tools {
namespace {

template <typename Value>
quant::Json or_null(const std::optional<Value>& value) {
  return value ? quant::Json(*value) : quant::Json(nullptr);
}

const char* test_name(BenchTest test) {
  return test == BenchTest::kDecode ? "decode" : "prefill";
}

std::optional<double> fraction_of(const BenchRow& row, const std::optional<Bound>& bound) {
  if (!bound) return std::nullopt;
  return row.tokens_per_s.median / bound->tokens_per_s;
}

quant::Json compute_json(const cpu::MachineLimits& limits) {
  return {{"dram_read_gb_per_s", or_null(limits.dram_read_gb_per_s)},
          {"int8_gflop_per_s", or_null(limits.int8_gflop_per_s)},
          {"bf16_gflop_per_s", or_null(limits.bf16_gflop_per_s)}};
}

quant::Json row_json(const BenchRow& row, const BenchLimits& best) {
  const std::optional<Bound> bound = bound_of(row, limits_beside(row, best));
  return {
      {"test", test_name(row.test)},
      {"tokens", row.tokens},
      {"context", row.context},
      {"threads", row.threads},
      {"tokens_per_s",
       {{"median", row.tokens_per_s.median}, {"min", row.tokens_per_s.min}, {"max", row.tokens_per_s.max}}},
      {"weight_bytes_per_token", total_of(row.costs).weight_bytes},
      {"bytes_read_per_token", row.bytes_read},
      {"bytes_missed_per_token", row.bytes_missed},
      {"bytes_wasted_per_token", row.bytes_wasted},
      {"disk_gb_per_s", or_null(row.disk_gb_per_s)},
      {"expert_hit_rate", or_null(row.expert_hit_rate)},
      {"limits", compute_json(row.beside)},
      {"bound", bound ? quant::Json(bound->limit) : quant::Json(nullptr)},
      {"fraction_of_bound", or_null(fraction_of(row, bound))},
      {"fraction_of_best", or_null(fraction_of(row, bound_of(row, best)))},
  };
}

std::string rate_text(const std::optional<double>& rate, const char* unit) {
  if (!rate) return "not measured";
  return *rate < 100.0 ? fmt::format("{:.2f} {}", *rate, unit) : fmt::format("{:.0f} {}", *rate, unit);
}

std::string row_line(const BenchRow& row, const BenchLimits& best) {
  const std::optional<Bound> bound = bound_of(row, limits_beside(row, best));
  const Cost cost = total_of(row.costs);
  const double median = row.tokens_per_s.median;
  std::string line =
      fmt::format("{:<10}{:>7}{:>9}{:>11.2f}  {:<19}{:>10.4g}{:>8.2f}{:>9.0f}", test_name(row.test), row.tokens,
                  row.context, median, fmt::format("{:.2f}…{:.2f}", row.tokens_per_s.min, row.tokens_per_s.max),
                  cost.weight_bytes / 1e9, cost.weight_bytes * median / 1e9, cost.flop * median / 1e9);
  line += bound ? fmt::format("  {:.2f} t/s ({}): {:.1f} %", bound->tokens_per_s, bound->limit,
                              100.0 * fraction_of(row, bound).value_or(0.0))
                : "  none";
  if (row.beside.dram_read_gb_per_s && bound) {
    line += fmt::format("; DRAM read beside it {}, {:.1f} % of the run's best",
                        rate_text(row.beside.dram_read_gb_per_s, "GB/s"),
                        100.0 * fraction_of(row, bound_of(row, best)).value_or(0.0));
  }
  if (row.bytes_read > 0.0) {
    const double busy_share = row.total_s > 0.0 ? row.disk_busy_s / row.total_s : 0.0;
    line +=
        fmt::format("; {:.4f} GB/token missed, {:.4f} read, {:.4f} for nothing; reading {:.1f} % of the time; disk {}",
                    row.bytes_missed / 1e9, row.bytes_read / 1e9, row.bytes_wasted / 1e9, 100.0 * busy_share,
                    rate_text(row.disk_gb_per_s, "GB/s"));
  }
  if (row.bytes_read > 0.0 && row.expert_hit_rate) line += fmt::format(", hits {:.1f} %", 100.0 * *row.expert_hit_rate);
  return line + "\n";
}

/// `rate` may be empty.
std::string part_line(const char* name, double seconds, const BenchRow& row, const std::string& rate) {
  const double share = row.total_s > 0.0 ? 100.0 * seconds / row.total_s : 0.0;
  std::string line = fmt::format("    {:<18}{:>10.3f} ms/token{:>7.1f} %", name, seconds * 1e3, share);
  if (!rate.empty()) line += fmt::format("{:>20}", rate);
  return line + "\n";
}

/// Time of each kind of layer and the rate it reached.
std::string part_lines(const BenchRow& row) {
  std::string text;
  double rest_s = row.total_s - row.wait_s;
  for (const LayerKind kind : kLayerKinds) {
    const double seconds = row.seconds[kind];
    rest_s -= seconds;
    const Cost& cost = row.costs[kind];
    std::string rate;
    if (seconds > 0.0 && row.test == BenchTest::kDecode)
      rate = fmt::format("{:.2f} GB/s", cost.weight_bytes / seconds / 1e9);
    if (seconds > 0.0 && row.test == BenchTest::kPrefill)
      rate = fmt::format("{:.0f} GFLOP/s", cost.flop / seconds / 1e9);
    if (seconds > 0.0 || cost.weight_bytes > 0.0) text += part_line(layer_kind_name(kind), seconds, row, rate);
  }
  text += part_line("wait for experts", row.wait_s, row, "");
  return text + part_line("everything else", rest_s, row, "");
}

}  // namespace

quant::Json bench_json(const BenchReport& report) {
  quant::Json rows = quant::Json::array();
  for (const BenchRow& row : report.rows) rows.push_back(row_json(row, report.limits));
  const cpu::MachineLimits& compute = report.limits.compute;
  return {
      {"machine", {{"cpu", report.cpu}, {"cores", report.cores}, {"isa", report.isa}}},
      {"model",
       {{"name", report.model}, {"bytes_per_token", report.token.weight_bytes}, {"flop_per_token", report.token.flop}}},
      {"limits",
       {{"dram_read_gb_per_s", or_null(compute.dram_read_gb_per_s)},
        {"int8_gflop_per_s", or_null(compute.int8_gflop_per_s)},
        {"bf16_gflop_per_s", or_null(compute.bf16_gflop_per_s)},
        {"disk_gb_per_s", or_null(report.limits.disk_gb_per_s)}}},
      {"rows", std::move(rows)}};
}

std::string bench_table(const BenchReport& report) {
  const cpu::MachineLimits& compute = report.limits.compute;
  std::string text = fmt::format("machine  {}, {} cores, {}\n", report.cpu, report.cores, report.isa);
  text += fmt::format("limits   DRAM read {}, int8 {}, bf16 {}, disk {}\n",
                      rate_text(compute.dram_read_gb_per_s, "GB/s"), rate_text(compute.int8_gflop_per_s, "GFLOP/s"),
                      rate_text(compute.bf16_gflop_per_s, "GFLOP/s"), rate_text(report.limits.disk_gb_per_s, "GB/s"));
  text += fmt::format("model    {}: {:.3f} GB of weights and {:.3f} GFLOP per token\n\n", report.model,
                      report.token.weight_bytes / 1e9, report.token.flop / 1e9);
  text += fmt::format("{:<10}{:>7}{:>9}{:>11}  {:<19}{:>10}{:>8}{:>9}  {}\n", "test", "tokens", "context", "tokens/s",
                      "min…max", "GB/token", "GB/s", "GFLOP/s", "of the bound");
  for (const BenchRow& row : report.rows) text += row_line(row, report.limits) + part_lines(row);
  return text;
}

}  // namespace moraine::tools

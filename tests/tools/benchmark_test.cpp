#include "tools/benchmark.h"

#include <gtest/gtest.h>

#include <cmath>

#include "quant/json.h"
#include "support/captured_console.h"
#include "support/expect_error.h"
#include "support/small_model.h"
#include "support/temp_dir.h"
#include "tools/engine_setup.h"
#include "tools/program.h"

namespace moraine::tools {
namespace {

using testing::CapturedConsole;
using testing::TempDir;

/// A model of some kilobytes (2 MoE layers of 4 experts, 2 per token) and everything to run it.
class Benchmark : public ::testing::Test {
 protected:
  Benchmark() { testing::write_small_model(directory_.path()); }

  EngineOptions engine_options() const {
    EngineOptions options;
    options.model = directory_.path();
    options.threads = 2;
    return options;
  }

  std::unique_ptr<runtime::Engine> open(const EngineOptions& options) {
    return open_engine(options, console_.console(), [this](runtime::EngineParts& parts) {
      parts.dense = timed(std::move(parts.dense), times_);
      parts.expert_backend = timed(std::move(parts.expert_backend), times_);
    });
  }

  const TempDir directory_;
  CapturedConsole console_;
  LayerTimes times_;
};

TEST_F(Benchmark, RunsThePlanRowByRow) {
  const auto engine = open(engine_options());
  std::vector<std::string> told;
  const std::vector<BenchRow> rows = run_benchmark(
      *engine, times_, 2, {.prompt_tokens = {1, 17}, .decode_tokens = 4, .depths = {0, 9, 3}, .repetitions = 2},
      [&](const std::string& what) { told.push_back(what); });
  EXPECT_EQ(told.size(), 6u);
  ASSERT_EQ(rows.size(), 5u);
  const std::vector<std::pair<int64_t, int64_t>> tokens_context = {{1, 0}, {17, 0}, {4, 0}, {4, 9}, {4, 3}};
  for (size_t i = 0; i < rows.size(); ++i) {
    const BenchRow& row = rows[i];
    EXPECT_EQ(row.test, i < 2 ? BenchTest::kPrefill : BenchTest::kDecode);
    EXPECT_EQ(row.tokens, tokens_context[i].first);
    EXPECT_EQ(row.context, tokens_context[i].second);
    EXPECT_EQ(row.threads, 2);
    EXPECT_GT(row.tokens_per_s.min, 0.0);
    EXPECT_LE(row.tokens_per_s.min, row.tokens_per_s.median);
    EXPECT_LE(row.tokens_per_s.median, row.tokens_per_s.max);
    EXPECT_EQ(row.expert_hit_rate, 1.0) << "all experts are in RAM";
    EXPECT_EQ(row.bytes_read, 0.0);
    double inside_s = 0.0;
    for (const LayerKind kind : kLayerKinds) {
      EXPECT_GT(row.seconds[kind], 0.0) << layer_kind_name(kind);
      inside_s += row.seconds[kind];
    }
    EXPECT_LE(inside_s + row.wait_s, row.total_s);
    // Time per token and tokens per second are the same measurement: 1/t lies between the repetitions' speeds.
    EXPECT_GE(1.0 / row.total_s, row.tokens_per_s.min * (1 - 1e-9));
    EXPECT_LE(1.0 / row.total_s, row.tokens_per_s.max * (1 + 1e-9));
  }
}

TEST_F(Benchmark, CostsAreThoseOfTheModel) {
  const auto engine = open(engine_options());
  const std::vector<BenchRow> rows = run_benchmark(
      *engine, times_, 2, {.prompt_tokens = {1, 60}, .decode_tokens = 4, .depths = {10}, .repetitions = 2});
  const ModelCosts costs(engine->model(), engine->experts().layouts);
  ASSERT_EQ(rows.size(), 3u);
  // One token chooses exactly its top 2 of every MoE layer; the experts that 60 tokens chose are read once.
  const double one = total_of(costs.prefill(1, std::vector<int64_t>{0, 2, 2})).weight_bytes;
  EXPECT_DOUBLE_EQ(total_of(rows[0].costs).weight_bytes, one);
  const StepCosts sixty = costs.prefill(60, std::vector<int64_t>{0, 0, 1});
  const double touched = rows[1].costs[LayerKind::kRouted].weight_bytes * 60 / sixty[LayerKind::kRouted].weight_bytes;
  EXPECT_NEAR(touched, std::round(touched), 1e-9);
  EXPECT_GT(touched, 4.0);
  EXPECT_LE(touched, 8.0);
  const double resident = total_of(sixty).weight_bytes - sixty[LayerKind::kRouted].weight_bytes;
  EXPECT_DOUBLE_EQ(total_of(rows[1].costs).weight_bytes * 60,
                   resident + touched * sixty[LayerKind::kRouted].weight_bytes);
  // Contexts 10, 11, 12, 13.
  const Cost decode = total_of(costs.decode(11.5));
  EXPECT_DOUBLE_EQ(total_of(rows[2].costs).weight_bytes, decode.weight_bytes);
  EXPECT_DOUBLE_EQ(total_of(rows[2].costs).context_flop, decode.context_flop);
}

TEST_F(Benchmark, SeesWhatComesFromTheDisk) {
  EngineOptions options = engine_options();
  options.ram_budget_bytes = 2 * 16384;  // two of eight records
  options.prefetch = false;
  const auto engine = open(options);
  ASSERT_LT(engine->store().slot_count(), 8);
  int measured = 0;
  const std::vector<BenchRow> rows =
      run_benchmark(*engine, times_, 2, {.prompt_tokens = {8}, .decode_tokens = 8, .depths = {0}, .repetitions = 1}, {},
                    {.disk = [&] { return std::optional<double>(++measured); }});
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].disk_gb_per_s, 1.5) << "between the first measurement and the second";
  EXPECT_EQ(rows[1].disk_gb_per_s, 2.5);
  ASSERT_TRUE(rows[0].expert_hit_rate);
  EXPECT_LT(*rows[0].expert_hit_rate, 1.0);
  EXPECT_GT(rows[0].bytes_read, 0.0);
  EXPECT_GT(rows[0].bytes_missed, 0.0);
  EXPECT_LE(rows[0].bytes_missed, rows[0].bytes_read) << "what alignment adds was not missed";
}

TEST_F(Benchmark, MeasuresTheMachineAroundEveryRepetition) {
  const auto engine = open(engine_options());
  double dram = 0.0;
  const std::vector<BenchRow> rows =
      run_benchmark(*engine, times_, 2, {.prompt_tokens = {8}, .decode_tokens = 2, .depths = {0}, .repetitions = 2}, {},
                    {.compute = [&] { return cpu::LimitSamples{.dram_read_gb_per_s = {dram += 1.0}}; }});
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].beside.dram_read_gb_per_s, 2.0) << "the median of 1, 2, 3";
  EXPECT_EQ(rows[1].beside.dram_read_gb_per_s, 5.0);
  EXPECT_FALSE(rows[0].beside.int8_gflop_per_s);
}

TEST_F(Benchmark, RefusesWhatTheContextDoesNotHold) {
  const auto engine = open(engine_options());
  const auto refused = [&](const BenchPlan& plan) {
    testing::expect_error(quant::ErrorKind::kUsage, {"65 tokens", "64"},
                          [&] { (void)run_benchmark(*engine, times_, 2, plan); });
  };
  refused({.prompt_tokens = {65}, .decode_tokens = 0, .depths = {}});
  refused({.prompt_tokens = {}, .decode_tokens = 5, .depths = {60}});
}

TEST_F(Benchmark, PrintsLimitsOfTheSameRun) {
  BenchOptions options;
  options.engine = engine_options();
  options.plan = {.prompt_tokens = {8}, .decode_tokens = 2, .depths = {0}, .repetitions = 1};
  options.limit_sizes = {.read_bytes = 32u << 20, .tokens = 16, .cols = 128, .rows = 64, .max_s = 0.0};
  options.disk = {.first_lead_s = 0.0, .lead_s = 0.0, .measure_s = 0.01};
  options.json = true;
  EXPECT_EQ(bench(options, console_.console()), 0);
  const quant::Json json = quant::parse_json(console_.out(), "stdout");
  EXPECT_EQ(json["model"]["name"], directory_.path().filename().string());
  EXPECT_GT(json["model"]["bytes_per_token"].get<double>(), 0.0);
  EXPECT_GT(json["limits"]["dram_read_gb_per_s"].get<double>(), 0.0);
  EXPECT_GT(json["machine"]["cores"].get<int>(), 0);
  ASSERT_EQ(json["rows"].size(), 2u);
  EXPECT_EQ(json["rows"][0]["test"], "prefill");
  EXPECT_EQ(json["rows"][1]["test"], "decode");
  EXPECT_GT(json["rows"][1]["fraction_of_bound"].get<double>(), 0.0);
  EXPECT_GT(json["rows"][1]["fraction_of_best"].get<double>(), 0.0);
  // Medians of some passes, beside the fastest of them all.
  EXPECT_GT(json["rows"][1]["limits"]["dram_read_gb_per_s"].get<double>(), 0.0);
  EXPECT_LE(json["rows"][1]["limits"]["dram_read_gb_per_s"], json["limits"]["dram_read_gb_per_s"]);
}

TEST(BenchCommand, RefusesWrongUsage) {
  const std::vector<std::vector<const char*>> wrong = {{},
                                                       {"model", "--reps", "0"},
                                                       {"model", "-p", "128,many"},
                                                       {"model", "-n", "-1"},
                                                       {"model", "--depth", "-8"},
                                                       {"-p", "128", "256", "model"}};
  for (std::vector<const char*> args : wrong) {
    args.insert(args.begin(), {"moraine", "bench"});
    CapturedConsole captured;
    EXPECT_EQ(run_program(static_cast<int>(args.size()), args.data(), captured.console()), 2) << args.back();
    EXPECT_EQ(captured.out(), "");
  }
}

}  // namespace
}  // namespace moraine::tools

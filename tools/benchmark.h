#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "runtime/engine.h"
#include "tools/bench_row.h"
#include "tools/console.h"
#include "tools/engine_options.h"
#include "tools/timed_backend.h"

namespace moraine::tools {

/// What is run: every prompt length, and decoding at every depth.
struct BenchPlan {
  std::vector<int64_t> prompt_tokens = {128, 1024};
  int64_t decode_tokens = 64;         ///< 0: no decoding
  std::vector<int64_t> depths = {0};  ///< tokens in the cache before decoding begins
  int repetitions = 3;
  uint64_t seed = 1;  ///< of the random token ids

  /// Throws quant::Error(kUsage) naming the first length that the model's context does not hold.
  void validate(const runtime::ModelConfig& config) const;
  /// Tokens of the longest sequence.
  int64_t context_tokens() const;
};

/// Seconds for which the drive is read to know its speed. The long lead takes away what a drive gives at first (caches,
/// credit of a virtual drive: 5.5 s of double speed were seen); between rows it has no time to rest.
struct DiskTimes {
  double first_lead_s = 7.0;
  double lead_s = 0.5;
  double measure_s = 2.0;
};

struct BenchOptions {
  EngineOptions engine;
  BenchPlan plan;
  cpu::LimitSizes limit_sizes;  ///< read_bytes 0: by the machine's caches and free RAM
  DiskTimes disk;
  bool json = false;
};

/// Told before each part begins.
using BenchProgress = std::function<void(const std::string& what)>;
/// Measures the drive, GB/s: called before the first row and after each that has read from it.
using DiskMeter = std::function<std::optional<double>()>;

/// Measures the machine's limits: called before the first repetition of a row and after each.
using ComputeMeter = std::function<cpu::LimitSamples()>;
/// What is measured beside the rows.
struct BenchMeters {
  DiskMeter disk = {};
  ComputeMeter compute = {};
};

/// Runs the plan on an engine whose backends add their time to `times`. Token ids are random, so that experts vary. The
/// expert store is warm: filled if it holds all experts, else as some steps leave it. Rows: prompts first, then
/// decoding, in the plan's order.
std::vector<BenchRow> run_benchmark(runtime::Engine& engine, LayerTimes& times, int threads, const BenchPlan& plan,
                                    const BenchProgress& progress = {}, const BenchMeters& meters = {});

/// Runs `moraine bench`: limits, plan with the machine's speed beside every row, limits again. Returns the exit code.
int bench(const BenchOptions& options, Console& console);

}  // namespace moraine::tools

#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cpu/machine_limits.h"
#include "tools/model_costs.h"

namespace moraine::tools {

enum class BenchTest { kDecode, kPrefill };

/// The speeds of several repetitions.
struct Spread {
  double median = 0.0;
  double min = 0.0;
  double max = 0.0;

  /// Of at least one value. The median of an even number is the mean of the two in the middle.
  static Spread of(const std::vector<double>& values);
};

/// Limits of the machine; nothing where nothing was measured.
struct BenchLimits {
  cpu::MachineLimits compute = {};
  std::optional<double> disk_gb_per_s = {};
};

/// One test with its repetitions. Per-token values are means over all tokens of all repetitions.
struct BenchRow {
  BenchTest test = BenchTest::kDecode;
  int64_t tokens = 0;   ///< of one repetition
  int64_t context = 0;  ///< tokens in the cache before the first of them
  int threads = 0;
  Spread tokens_per_s = {};
  StepCosts costs = {};                        ///< per token: what had to be read and computed
  PerKind<double> seconds = {};                ///< per token: time inside the backends
  double wait_s = 0.0;                         ///< per token: waiting for experts
  double total_s = 0.0;                        ///< per token
  double bytes_read = 0.0;                     ///< per token: from the disk
  double bytes_missed = 0.0;                   ///< per token: of the experts that were wanted and had to be read for it
  double disk_busy_s = 0.0;                    ///< per token: while a read was under way
  double bytes_wasted = 0.0;                   ///< per token: read for hints and given up unused
  std::optional<double> expert_hit_rate = {};  ///< nothing if no expert was wanted
  /// Of the drive, measured right before and right after this test: the mean. Nothing if nothing was read.
  std::optional<double> disk_gb_per_s = {};
  /// Medians of what was measured before the first repetition and after each. Nothing where nothing was.
  cpu::MachineLimits beside = {};
};

/// The limits of the time at which the row was measured: `beside`, and where that says nothing the run's best.
BenchLimits limits_beside(const BenchRow& row, const BenchLimits& best);

/// Which limit holds a test back, and the speed it allows.
struct Bound {
  const char* limit = "";  ///< "dram", "int8", "bf16" or "disk"
  double tokens_per_s = 0.0;
};

/// decode: weights ÷ DRAM read + attention's products with the cached tokens ÷ bf16 peak, one after the other; named by
/// the larger. prefill: the larger of weights ÷ DRAM read and all products ÷ int8 peak. Both: never faster than the
/// missed bytes ÷ disk speed beside the row. A limit that was not measured bounds nothing.
std::optional<Bound> bound_of(const BenchRow& row, const BenchLimits& limits);

/// Everything that `moraine bench` prints.
struct BenchReport {
  std::string cpu = {};
  int cores = 0;
  std::string isa = {};
  std::string model = {};
  Cost token = {};  ///< one decoded token without context
  BenchLimits limits = {};
  std::vector<BenchRow> rows = {};
};

}  // namespace moraine::tools

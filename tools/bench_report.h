#pragma once

#include <string>

#include "quant/json.h"
#include "tools/bench_row.h"

namespace moraine::tools {

/// The object of `moraine bench --json` (docs/benchmarks.md): machine, model, limits, rows. null where nothing was
/// measured.
quant::Json bench_json(const BenchReport& report);

/// The same for people, with the parts of each row: for every kind of layer its time, and the rate at which it read
/// weights (decode) or computed (prefill).
std::string bench_table(const BenchReport& report);

}  // namespace moraine::tools

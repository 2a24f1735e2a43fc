#pragma once

#include <string>

#include "quant/json.h"
#include "runtime/generator.h"

namespace moraine::tools {

/// What an answer cost, as every --json prints it: seconds, tokens per second and the expert store's counters by name.
quant::Json stats_json(const runtime::GenerateStats& stats);
quant::Json counters_json(const offload::StoreCounters& counters);

/// The object for stdout: one line, invalid UTF-8 replaced.
std::string json_text(const quant::Json& json);

}  // namespace moraine::tools

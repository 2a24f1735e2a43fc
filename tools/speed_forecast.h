#pragma once

#include "tools/console.h"
#include "tools/engine_options.h"

namespace moraine::tools {

/// Says in a line on stderr how fast the engine that these options open will be, by the plan that `moraine plan`
/// prints. The machine's limits are those noted before; for a model of 1 GiB or more they are measured the first time
/// (2 s) and noted. Says nothing of smaller ones, of arithmetic that no plan is made for (--precise, --reference), or
/// where nothing is known. Throws quant::Error for a model that can't be opened or does not fit.
void tell_expected_speed(const EngineOptions& options, Console& console);

}  // namespace moraine::tools

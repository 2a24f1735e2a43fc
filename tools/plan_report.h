#pragma once

#include <string>

#include "quant/json.h"
#include "tools/model_plan.h"

namespace moraine::tools {

/// The plan for people: machine, where every group lies, speeds with what binds them, what would gain most.
std::string plan_text(const PlannedModel& model, const MachineSpec& machine, const ModelPlan& plan);
/// The same numbers for scripts; null where nothing is known.
/// One line: "expected: prefill 57 tokens/s (disk), decode 5.1 tokens/s (disk), 38 % hits"; empty if neither is known.
std::string expected_line(const ModelPlan& plan);
quant::Json plan_json(const PlannedModel& model, const MachineSpec& machine, const ModelPlan& plan);

}  // namespace moraine::tools

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "offload/memory_plan.h"
#include "tools/bench_row.h"
#include "tools/machine_spec.h"
#include "tools/planned_model.h"

namespace moraine::tools {

/// How fast one kind of work will be.
struct SpeedEstimate {
  Bound bound = {};           ///< what the binding limit allows
  double efficiency = 1.0;    ///< how much of that bound is reached: ReachedShares, and what does not overlap
  double disk_bytes = 0.0;    ///< per token
  double memory_bytes = 0.0;  ///< weights per token, RAM and VRAM
  double pcie_bytes = 0.0;    ///< between RAM and VRAM per token

  double tokens_per_s() const { return bound.tokens_per_s * efficiency; }
};

/// A change to machine or settings and what it brings: factors on predicted speed.
struct PlannedGain {
  std::string change;
  double decode_factor = 1.0;
  double prefill_factor = 1.0;
};

/// Everything `moraine plan` says.
struct ModelPlan {
  PlacedModel placed;
  double hit_rate = 1.0;                      ///< expected, of records wanted while decoding
  std::optional<SpeedEstimate> decode = {};   ///< nothing if no limit that matters is known
  std::optional<SpeedEstimate> prefill = {};  ///< of a prompt of kPlannedPromptTokens
  std::vector<PlannedGain> gains = {};        ///< worth telling, best first

  const offload::MemoryPlan& memory() const { return placed.memory; }
};

inline constexpr int64_t kPlannedPromptTokens = 1024;
inline constexpr int64_t kPlannedDecodeContext = 1024;  ///< tokens in the cache while decoding

/// Expected share of wanted experts that are in RAM, if RAM holds `fraction` of all and at least one token's. From the
/// simulator's routing model (docs/memory_plan.md has its statistics and this curve).
double expected_hit_rate(double fraction);

/// Memory, speeds and the changes that would gain most, from sizes and numbers alone. `chunk_rows`: the largest step.
/// Throws quant::Error as plan_memory().
ModelPlan plan_model(const PlannedModel& model, const MachineSpec& machine, const offload::MemoryWishes& wishes,
                     int64_t chunk_rows);

}  // namespace moraine::tools

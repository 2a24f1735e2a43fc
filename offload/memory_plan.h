#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace moraine::offload {

/// What a model needs in RAM.
struct MemoryNeeds {
  uint64_t resident_bytes = 0;  ///< weights that always stay
  uint64_t kv_bytes = 0;        ///< KV cache at full context
  uint64_t scratch_bytes = 0;   ///< activations, staging, tables
  uint64_t record_bytes = 0;    ///< of the largest expert record; 0 for a model without experts
  uint64_t expert_count = 0;    ///< over all layers
  uint64_t min_slots = 0;       ///< records that must be in RAM at once (one layer's top-k)
};

/// Where everything goes.
struct MemoryPlan {
  MemoryNeeds needs;
  uint64_t available_bytes = 0;  ///< RAM that could be had when the plan was made
  uint64_t reserve_bytes = 0;    ///< left to everyone else; 0 if a budget was asked for
  uint64_t slot_bytes = 0;       ///< a record's place, rounded up to 4096
  uint64_t slot_count = 0;
  uint64_t experts_budget_bytes = 0;  ///< slot_count × slot_bytes

  bool holds_all_experts() const { return slot_count == needs.expert_count; }
  uint64_t total_bytes() const;
  /// A few lines for people, the last ending without a newline.
  std::string text() const;
};

/// RAM that the plan leaves to everyone else: 5 %, at least 1 GiB but never more than a quarter.
uint64_t reserve_bytes(uint64_t available_bytes);

/// Decides how many expert records stay in RAM. `ram_budget_bytes`: for expert records alone, as --ram-budget says;
/// without it, all experts if they fit beside everything else, else as many as fit. Depends on nothing but its
/// arguments. Throws quant::Error(kNotEnough) with the numbers if the model can't run.
MemoryPlan plan_memory(const MemoryNeeds& needs, uint64_t available_bytes, std::optional<uint64_t> ram_budget_bytes);

}  // namespace moraine::offload

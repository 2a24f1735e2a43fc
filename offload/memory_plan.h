#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace moraine::offload {

/// Where a group of tensors lies while the model runs.
enum class MemoryTier { kRam, kVram };
const char* memory_tier_name(MemoryTier tier);

/// Weights that always stay in memory together.
struct ResidentGroup {
  std::string name = {};
  uint64_t size_bytes = 0;
  bool gpu_computes = true;  ///< worth a place in VRAM
  bool needs_kv = false;     ///< reads the KV cache, which then lies beside it
};

/// What a model needs.
struct MemoryNeeds {
  std::vector<ResidentGroup> resident = {};  ///< in the order in which they are given VRAM
  uint64_t kv_bytes_per_token = 0;
  int64_t max_context_tokens = 0;  ///< that the model knows
  uint64_t scratch_bytes = 0;      ///< activations, staging, tables
  uint64_t record_bytes = 0;       ///< of the largest expert record; 0 for a model without experts
  uint64_t expert_count = 0;       ///< over all layers
  uint64_t min_slots = 0;          ///< records that must be in RAM at once (one layer's top-k)

  uint64_t resident_bytes() const;
};

/// What the machine can give to it.
struct MemoryRoom {
  uint64_t ram_bytes = 0;  ///< RAM that could be had now
  uint64_t vram_bytes = 0;
  bool is_limited = false;  ///< by a control group's limit on ram_bytes: the machine's other programs have more
};

/// What a person decided; the rest is planned around it.
struct MemoryWishes {
  std::optional<uint64_t> experts_budget_bytes = {};  ///< RAM for expert records alone (--ram-budget)
  std::optional<int64_t> context_tokens = {};         ///< --context
};

/// Where everything goes.
struct MemoryPlan {
  MemoryNeeds needs = {};
  MemoryRoom room = {};
  std::vector<MemoryTier> tiers = {};  // [needs.resident.size()]
  MemoryTier kv_tier = MemoryTier::kRam;
  uint64_t reserve_bytes = 0;  ///< RAM left to everyone else; 0 if a budget was asked for
  int64_t context_tokens = 0;  ///< that the KV cache has room for
  uint64_t kv_bytes = 0;
  uint64_t slot_bytes = 0;  ///< a record's place, rounded up to 4096
  uint64_t slot_count = 0;
  uint64_t experts_budget_bytes = 0;  ///< slot_count × slot_bytes

  bool holds_all_experts() const { return slot_count == needs.expert_count; }
  /// Of the resident weights and the KV cache.
  uint64_t bytes_in(MemoryTier tier) const;
  uint64_t total_ram_bytes() const;
};

/// RAM that the plan leaves to everyone else: 5 %, at least 1 GiB but never more than a quarter. Within a control
/// group's limit there is nobody else: a sixteenth, the room in which SystemPressure lets the cache be, and 5 % of
/// much.
uint64_t reserve_bytes(const MemoryRoom& room);

/// Decides what lies where. VRAM: groups in order while they fit, less a tenth. Context: the model's if all wanted
/// experts fit beside it; else as many thousands (1024) of tokens as fill an eighth of the RAM beside the resident
/// weights, but at least 4096. Experts: the budget asked for; without it all if they fit, else as many as fit. Depends
/// on nothing but its arguments. Throws quant::Error: kNotEnough with the numbers if the model can't run, kUsage for a
/// context that the model does not have.
MemoryPlan plan_memory(const MemoryNeeds& needs, const MemoryRoom& room, const MemoryWishes& wishes);

}  // namespace moraine::offload

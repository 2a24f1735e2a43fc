#include "offload/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "offload/host_arena.h"
#include "quant/error.h"

namespace moraine::offload {
namespace {

constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
constexpr uint64_t kKvShare = 8;  // the KV cache takes at most this part of the RAM beside the resident weights …
constexpr int64_t kLeastContext = 4096;  // … but room for so many tokens is always planned
constexpr int64_t kContextStep = 1024;
constexpr uint64_t kVramReserveShare = 10;

/// Sizes come from files: sums and products stop at the largest number instead of wrapping.
uint64_t add(uint64_t a, uint64_t b) {
  return a > kMax - b ? kMax : a + b;
}
uint64_t multiply(uint64_t a, uint64_t b) {
  return b != 0 && a > kMax / b ? kMax : a * b;
}
uint64_t subtract(uint64_t a, uint64_t b) {
  return a > b ? a - b : 0;
}

std::string gib(uint64_t bytes) {
  constexpr double kMib = 1024.0 * 1024.0;
  const double mib = static_cast<double>(bytes) / kMib;
  return mib < 1024.0 ? fmt::format("{:.1f} MiB", mib) : fmt::format("{:.1f} GiB", mib / 1024.0);
}

uint64_t kv_bytes_of(const MemoryNeeds& needs, int64_t tokens) {
  return multiply(needs.kv_bytes_per_token, static_cast<uint64_t>(tokens));
}

uint64_t usable_vram_bytes(const MemoryRoom& room) {
  return room.vram_bytes - room.vram_bytes / kVramReserveShare;
}

/// Groups in order while they fit; the KV cache goes with the group that reads it, at least for the least context.
void place_in_vram(MemoryPlan& plan) {
  uint64_t left_bytes = usable_vram_bytes(plan.room);
  const int64_t least_context = std::min(kLeastContext, plan.needs.max_context_tokens);
  for (size_t i = 0; i < plan.tiers.size(); ++i) {
    const ResidentGroup& group = plan.needs.resident[i];
    const uint64_t kv_bytes = group.needs_kv ? kv_bytes_of(plan.needs, least_context) : 0;
    if (!group.gpu_computes || add(group.size_bytes, kv_bytes) > left_bytes) continue;
    plan.tiers[i] = MemoryTier::kVram;
    if (group.needs_kv) plan.kv_tier = MemoryTier::kVram;
    left_bytes -= group.size_bytes + kv_bytes;
  }
}

/// Tokens for which the KV cache is planned; `spare_bytes`: beside weights and scratch, where the cache lies.
int64_t planned_context(const MemoryNeeds& needs, uint64_t spare_bytes, uint64_t wanted_experts_bytes) {
  const int64_t most = needs.max_context_tokens;
  if (add(kv_bytes_of(needs, most), wanted_experts_bytes) <= spare_bytes || needs.kv_bytes_per_token == 0) return most;
  const uint64_t kv_bytes = std::max(spare_bytes / kKvShare, subtract(spare_bytes, wanted_experts_bytes));
  const auto tokens =
      static_cast<int64_t>(std::min<uint64_t>(kv_bytes / needs.kv_bytes_per_token, static_cast<uint64_t>(most)));
  return std::clamp(tokens / kContextStep * kContextStep, std::min(kLeastContext, most), most);
}

void check_context(const MemoryNeeds& needs, int64_t wanted_tokens) {
  if (wanted_tokens >= 1 && wanted_tokens <= needs.max_context_tokens) return;
  throw quant::Error(quant::ErrorKind::kUsage,
                     {.what = fmt::format("a context of {} tokens", wanted_tokens),
                      .expected = fmt::format("1 to {}, this model's context", needs.max_context_tokens)});
}

/// The budget asked for holds too few records.
quant::Error budget_too_small(const MemoryPlan& plan, uint64_t min_slots, uint64_t budget_bytes) {
  return quant::Error(quant::ErrorKind::kNotEnough,
                      {.what = "the memory budget for experts is too small",
                       .expected = fmt::format("at least {} bytes ({} experts of {} bytes)",
                                               multiply(min_slots, plan.slot_bytes), min_slots, plan.slot_bytes),
                       .got = fmt::format("{}", budget_bytes),
                       .action = "choose a larger --ram-budget"});
}

uint64_t fixed_ram_bytes(const MemoryPlan& plan) {
  return add(plan.bytes_in(MemoryTier::kRam), plan.needs.scratch_bytes);
}

quant::Error ram_too_small(const MemoryPlan& plan, uint64_t experts_bytes, const std::string& action) {
  const uint64_t kv_ram_bytes = plan.kv_tier == MemoryTier::kRam ? plan.kv_bytes : 0;
  return quant::Error(
      quant::ErrorKind::kNotEnough,
      {.what = "the model does not fit into memory",
       .expected = fmt::format("{} bytes ({} resident weights + {} KV cache for {} tokens + {} scratch + {} experts{})",
                               add(add(fixed_ram_bytes(plan), experts_bytes), plan.reserve_bytes),
                               gib(subtract(plan.bytes_in(MemoryTier::kRam), kv_ram_bytes)), gib(kv_ram_bytes),
                               plan.context_tokens, gib(plan.needs.scratch_bytes), gib(experts_bytes),
                               plan.reserve_bytes > 0 ? " + " + gib(plan.reserve_bytes) + " reserve" : ""),
       .got = fmt::format("{} available", plan.room.ram_bytes),
       .action = action});
}

}  // namespace

const char* memory_tier_name(MemoryTier tier) {
  return tier == MemoryTier::kRam ? "RAM" : "VRAM";
}

uint64_t reserve_bytes(const MemoryRoom& room) {
  constexpr uint64_t kGib = 1u << 30;
  const uint64_t least_bytes = std::min(kGib, room.ram_bytes / (room.is_limited ? 16 : 4));
  return std::max(room.ram_bytes / 20, least_bytes);
}

uint64_t MemoryNeeds::resident_bytes() const {
  uint64_t sum = 0;
  for (const ResidentGroup& group : resident) sum = add(sum, group.size_bytes);
  return sum;
}

uint64_t MemoryPlan::bytes_in(MemoryTier tier) const {
  uint64_t sum = kv_tier == tier ? kv_bytes : 0;
  for (size_t i = 0; i < tiers.size(); ++i) {
    if (tiers[i] == tier) sum = add(sum, needs.resident[i].size_bytes);
  }
  return sum;
}

uint64_t MemoryPlan::total_ram_bytes() const {
  return add(fixed_ram_bytes(*this), experts_budget_bytes);
}

MemoryPlan plan_memory(const MemoryNeeds& needs, const MemoryRoom& room, const MemoryWishes& wishes) {
  MORAINE_CHECK(needs.expert_count == 0 || needs.record_bytes > 0);
  if (wishes.context_tokens) check_context(needs, *wishes.context_tokens);
  MemoryPlan plan = {.needs = needs, .room = room};
  plan.tiers.assign(needs.resident.size(), MemoryTier::kRam);
  const bool has_experts = needs.expert_count > 0;
  plan.slot_bytes = has_experts ? HostArena::slot_bytes_for(needs.record_bytes) : 0;
  plan.reserve_bytes = wishes.experts_budget_bytes ? 0 : reserve_bytes(room);
  const uint64_t min_slots = has_experts ? std::clamp<uint64_t>(needs.min_slots, 1, needs.expert_count) : 0;
  place_in_vram(plan);

  const uint64_t usable_bytes = subtract(room.ram_bytes, plan.reserve_bytes);
  const uint64_t all_experts_bytes = multiply(needs.expert_count, plan.slot_bytes);
  const bool kv_in_ram = plan.kv_tier == MemoryTier::kRam;
  const uint64_t beside_kv_bytes = kv_in_ram ? subtract(usable_bytes, fixed_ram_bytes(plan))
                                             : subtract(usable_vram_bytes(room), plan.bytes_in(MemoryTier::kVram));
  const uint64_t wanted_experts_bytes =
      kv_in_ram ? std::min(wishes.experts_budget_bytes.value_or(all_experts_bytes), all_experts_bytes) : 0;
  plan.context_tokens = wishes.context_tokens.value_or(planned_context(needs, beside_kv_bytes, wanted_experts_bytes));
  plan.kv_bytes = kv_bytes_of(needs, plan.context_tokens);

  const uint64_t room_bytes = subtract(usable_bytes, fixed_ram_bytes(plan));
  if (room_bytes == 0 || room_bytes < multiply(min_slots, plan.slot_bytes) ||
      (!kv_in_ram && plan.kv_bytes > beside_kv_bytes)) {
    throw ram_too_small(plan, multiply(min_slots, plan.slot_bytes),
                        "close other programs, choose a shorter --context, or a machine with more memory");
  }
  if (!has_experts) return plan;
  const uint64_t budget_bytes = wishes.experts_budget_bytes.value_or(room_bytes);
  plan.slot_count = std::min(needs.expert_count, budget_bytes / plan.slot_bytes);
  if (plan.slot_count < min_slots) throw budget_too_small(plan, min_slots, budget_bytes);
  plan.experts_budget_bytes = multiply(plan.slot_count, plan.slot_bytes);
  if (plan.experts_budget_bytes > room_bytes) {
    throw ram_too_small(plan, plan.experts_budget_bytes,
                        fmt::format("choose --ram-budget {} or less", room_bytes / plan.slot_bytes * plan.slot_bytes));
  }
  return plan;
}

}  // namespace moraine::offload

#include "offload/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "offload/host_arena.h"
#include "quant/error.h"

namespace moraine::offload {
namespace {

constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();

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

uint64_t fixed_bytes(const MemoryNeeds& needs) {
  return add(add(needs.resident_bytes, needs.kv_bytes), needs.scratch_bytes);
}

std::string gib(uint64_t bytes) {
  constexpr double kMib = 1024.0 * 1024.0;
  const double mib = static_cast<double>(bytes) / kMib;
  return mib < 1024.0 ? fmt::format("{:.1f} MiB", mib) : fmt::format("{:.1f} GiB", mib / 1024.0);
}

std::string parts(const MemoryNeeds& needs) {
  return fmt::format("{} resident weights + {} KV cache + {} scratch", gib(needs.resident_bytes), gib(needs.kv_bytes),
                     gib(needs.scratch_bytes));
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

quant::Error ram_too_small(const MemoryPlan& plan, uint64_t experts_bytes, const std::string& action) {
  return quant::Error(
      quant::ErrorKind::kNotEnough,
      {.what = "the model does not fit into memory",
       .expected =
           fmt::format("{} bytes ({} + {} experts{})",
                       add(add(fixed_bytes(plan.needs), experts_bytes), plan.reserve_bytes), parts(plan.needs),
                       gib(experts_bytes), plan.reserve_bytes > 0 ? " + " + gib(plan.reserve_bytes) + " reserve" : ""),
       .got = fmt::format("{} available", plan.available_bytes),
       .action = action});
}

}  // namespace

uint64_t reserve_bytes(uint64_t available_bytes) {
  constexpr uint64_t kGib = 1u << 30;
  return std::max(available_bytes / 20, std::min(kGib, available_bytes / 4));
}

uint64_t MemoryPlan::total_bytes() const {
  return add(fixed_bytes(needs), experts_budget_bytes);
}

std::string MemoryPlan::text() const {
  std::string lines = fmt::format("memory: {} of {} available\n", gib(total_bytes()), gib(available_bytes));
  lines += fmt::format("  resident weights {}, KV cache {}, scratch {}", gib(needs.resident_bytes), gib(needs.kv_bytes),
                       gib(needs.scratch_bytes));
  if (needs.expert_count == 0) return lines;
  return lines + fmt::format("\n  experts {}: {} of {} stay in memory{}", gib(experts_budget_bytes), slot_count,
                             needs.expert_count, holds_all_experts() ? "" : ", the others are read when needed");
}

MemoryPlan plan_memory(const MemoryNeeds& needs, uint64_t available_bytes, std::optional<uint64_t> ram_budget_bytes) {
  MORAINE_CHECK(needs.expert_count == 0 || needs.record_bytes > 0);
  MemoryPlan plan = {.needs = needs, .available_bytes = available_bytes};
  const bool has_experts = needs.expert_count > 0;
  plan.slot_bytes = has_experts ? HostArena::slot_bytes_for(needs.record_bytes) : 0;
  plan.reserve_bytes = ram_budget_bytes ? 0 : reserve_bytes(available_bytes);
  const uint64_t min_slots = has_experts ? std::clamp<uint64_t>(needs.min_slots, 1, needs.expert_count) : 0;
  const uint64_t room_bytes = subtract(subtract(available_bytes, plan.reserve_bytes), fixed_bytes(needs));
  if (room_bytes == 0 || room_bytes < multiply(min_slots, plan.slot_bytes)) {
    throw ram_too_small(plan, multiply(min_slots, plan.slot_bytes),
                        "close other programs, choose a shorter context, or a machine with more memory");
  }
  if (!has_experts) return plan;

  const uint64_t budget_bytes = ram_budget_bytes.value_or(room_bytes);
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

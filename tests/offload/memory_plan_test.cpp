#include "offload/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "quant/error.h"

namespace moraine::offload {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint64_t kMib = 1u << 20;
constexpr uint64_t kGib = 1u << 30;

/// 2 GiB resident, 1 GiB KV cache for the whole context of 16384 tokens, 1000 experts of 10 MiB.
MemoryNeeds needs() {
  return {.resident = {{.name = "attention", .size_bytes = kGib, .needs_kv = true},
                       {.name = "shared experts", .size_bytes = kGib / 2},
                       {.name = "embedding", .size_bytes = kGib / 2, .gpu_computes = false}},
          .kv_bytes_per_token = 64 * 1024,
          .max_context_tokens = 16384,
          .scratch_bytes = 0,
          .record_bytes = 10 * kMib,
          .expert_count = 1000,
          .min_slots = 8};
}

MemoryPlan plan(const MemoryNeeds& wanted, uint64_t ram_bytes, std::optional<uint64_t> budget_bytes = {}) {
  return plan_memory(wanted, {.ram_bytes = ram_bytes}, {.experts_budget_bytes = budget_bytes});
}

std::string refusal(const MemoryNeeds& wanted, const MemoryRoom& room, const MemoryWishes& wishes = {},
                    quant::ErrorKind kind = quant::ErrorKind::kNotEnough) {
  try {
    plan_memory(wanted, room, wishes);
  } catch (const quant::Error& error) {
    EXPECT_EQ(error.kind(), kind);
    return error.what();
  }
  return "accepted";
}

TEST(MemoryPlan, HoldsAllExpertsWhereTheyFit) {
  const MemoryPlan all = plan(needs(), 16 * kGib);
  EXPECT_TRUE(all.holds_all_experts());
  EXPECT_EQ(all.experts_budget_bytes, 1000 * 10 * kMib);
  EXPECT_EQ(all.context_tokens, 16384);
  EXPECT_EQ(all.total_ram_bytes(), 3 * kGib + 10000 * kMib);
}

TEST(MemoryPlan, OtherwiseFillsWhatTheReserveLeaves) {
  const MemoryPlan part = plan(needs(), 8 * kGib);
  EXPECT_EQ(part.reserve_bytes, kGib);
  EXPECT_EQ(part.context_tokens, 10240) << "an eighth of the 5 GiB beside the weights";
  EXPECT_EQ(part.kv_bytes, 640 * kMib);
  EXPECT_EQ(part.slot_count, (5 * kGib - 640 * kMib) / (10 * kMib));
}

TEST(MemoryPlan, TakesTheBudgetThatIsAskedFor) {
  const MemoryPlan asked = plan(needs(), 16 * kGib, 95 * kMib);
  EXPECT_EQ(asked.slot_count, 9u);
  EXPECT_EQ(asked.experts_budget_bytes, 90 * kMib);
  EXPECT_EQ(asked.reserve_bytes, 0u);
  EXPECT_EQ(plan(needs(), 64 * kGib, 60 * kGib).slot_count, 1000u) << "more than all experts is all experts";
}

TEST(MemoryPlan, ABudgetLeavesTheContextWhatIsLeft) {
  EXPECT_EQ(plan(needs(), 4 * kGib, kGib).context_tokens, 16384);
  EXPECT_EQ(plan(needs(), 4 * kGib, kGib + 512 * kMib).context_tokens, 8192);
}

TEST(MemoryPlan, TheContextAskedForMovesTheRest) {
  const MemoryPlan shorter = plan_memory(needs(), {.ram_bytes = 8 * kGib}, {.context_tokens = 1000});
  EXPECT_EQ(shorter.context_tokens, 1000);
  EXPECT_EQ(shorter.kv_bytes, 64000u * 1024);
  EXPECT_GT(shorter.slot_count, plan(needs(), 8 * kGib).slot_count);
  const MemoryPlan longer = plan_memory(needs(), {.ram_bytes = 8 * kGib}, {.context_tokens = 16384});
  EXPECT_EQ(longer.slot_count, 4 * kGib / (10 * kMib));
  EXPECT_THAT(refusal(needs(), {.ram_bytes = 8 * kGib}, {.context_tokens = 16385}, quant::ErrorKind::kUsage),
              HasSubstr("1 to 16384"));
}

TEST(MemoryPlan, TheLeastContextIsAlwaysPlanned) {
  const MemoryPlan tight = plan(needs(), 3 * kGib + 512 * kMib);
  EXPECT_EQ(tight.context_tokens, 4096);
  MemoryNeeds small = needs();
  small.max_context_tokens = 100;
  EXPECT_EQ(plan(small, 3 * kGib + 512 * kMib).context_tokens, 100);
}

TEST(MemoryPlan, VramTakesGroupsInOrder) {
  const MemoryPlan some = plan_memory(needs(), {.ram_bytes = 8 * kGib, .vram_bytes = kGib}, {});
  EXPECT_THAT(some.tiers, ElementsAre(MemoryTier::kRam, MemoryTier::kVram, MemoryTier::kRam));
  EXPECT_EQ(some.kv_tier, MemoryTier::kRam);
  const MemoryPlan all = plan_memory(needs(), {.ram_bytes = 8 * kGib, .vram_bytes = 3 * kGib}, {});
  EXPECT_THAT(all.tiers, ElementsAre(MemoryTier::kVram, MemoryTier::kVram, MemoryTier::kRam));
  EXPECT_EQ(all.kv_tier, MemoryTier::kVram);
  EXPECT_EQ(all.context_tokens, 16384);
  EXPECT_EQ(all.bytes_in(MemoryTier::kVram), 2 * kGib + 512 * kMib);
  EXPECT_EQ(all.slot_count, (6 * kGib + 512 * kMib) / (10 * kMib)) << "what left the RAM makes room for experts";
}

TEST(MemoryPlan, RefusesABudgetBelowOneLayer) {
  const std::string line = refusal(needs(), {.ram_bytes = 16 * kGib}, {.experts_budget_bytes = 79 * kMib});
  EXPECT_THAT(line, HasSubstr("83886080"));
  EXPECT_THAT(line, HasSubstr("--ram-budget"));
}

TEST(MemoryPlan, RefusesABudgetThatIsNotThere) {
  const std::string line =
      refusal(needs(), {.ram_bytes = 4 * kGib}, {.experts_budget_bytes = 9 * kGib, .context_tokens = 16384});
  EXPECT_THAT(line, HasSubstr("choose --ram-budget 1069547520 or less")) << "102 slots of 10 MiB";
}

TEST(MemoryPlan, RefusesAModelThatCannotFit) {
  EXPECT_THAT(refusal(needs(), {.ram_bytes = 2 * kGib}), HasSubstr("2.0 GiB resident weights"));
  MemoryNeeds dense = needs();
  dense.expert_count = 0;
  EXPECT_THAT(refusal(dense, {.ram_bytes = 2 * kGib}), HasSubstr("does not fit"));
}

TEST(MemoryPlan, ADenseModelHasNoExperts) {
  MemoryNeeds dense = needs();
  dense.expert_count = 0;
  dense.record_bytes = 0;
  EXPECT_EQ(plan(dense, 8 * kGib).experts_budget_bytes, 0u);
}

TEST(MemoryPlan, SlotsAreWholePages) {
  MemoryNeeds odd = needs();
  odd.record_bytes = 4097;
  EXPECT_EQ(plan(odd, 16 * kGib, kMib).slot_count, 128u);
}

TEST(MemoryPlan, SizesThatOverflowAreRefusedNotWrapped) {
  MemoryNeeds huge = needs();
  huge.resident[0].size_bytes = std::numeric_limits<uint64_t>::max() - 5;
  EXPECT_THAT(refusal(huge, {.ram_bytes = 16 * kGib}), HasSubstr("does not fit"));
  huge = needs();
  huge.record_bytes = uint64_t{1} << 62;
  EXPECT_THAT(refusal(huge, {.ram_bytes = 16 * kGib}), HasSubstr("does not fit"));
  huge = needs();
  huge.kv_bytes_per_token = uint64_t{1} << 62;
  EXPECT_THAT(refusal(huge, {.ram_bytes = 16 * kGib}), HasSubstr("does not fit"));
}

TEST(MemoryPlan, ASmallMachineKeepsASmallReserve) {
  EXPECT_EQ(reserve_bytes({.ram_bytes = 512 * kMib}), 128 * kMib);
  EXPECT_EQ(reserve_bytes({.ram_bytes = 16 * kGib}), kGib);
  EXPECT_EQ(reserve_bytes({.ram_bytes = 400 * kGib}), 20 * kGib);
}

TEST(MemoryPlan, WithinALimitTheReserveIsSmaller) {
  EXPECT_EQ(reserve_bytes({.ram_bytes = 6 * kGib, .is_limited = true}), 384 * kMib);
  EXPECT_EQ(reserve_bytes({.ram_bytes = 16 * kGib, .is_limited = true}), kGib);
  EXPECT_EQ(reserve_bytes({.ram_bytes = 400 * kGib, .is_limited = true}), 20 * kGib);
  const MemoryPlan limited = plan_memory(needs(), {.ram_bytes = 8 * kGib, .is_limited = true}, {});
  EXPECT_EQ(limited.reserve_bytes, 512 * kMib);
  EXPECT_GT(limited.slot_count, plan(needs(), 8 * kGib).slot_count);
}

}  // namespace
}  // namespace moraine::offload

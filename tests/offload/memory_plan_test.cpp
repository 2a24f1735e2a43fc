#include "offload/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "quant/error.h"

namespace moraine::offload {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kMib = 1u << 20;
constexpr uint64_t kGib = 1u << 30;

MemoryNeeds needs() {
  return {.resident_bytes = 2 * kGib,
          .kv_bytes = kGib,
          .scratch_bytes = 0,
          .record_bytes = 10 * kMib,
          .expert_count = 1000,
          .min_slots = 8};
}

std::string refusal(const MemoryNeeds& wanted, uint64_t available_bytes, std::optional<uint64_t> budget_bytes) {
  try {
    plan_memory(wanted, available_bytes, budget_bytes);
  } catch (const quant::Error& error) {
    EXPECT_EQ(error.kind(), quant::ErrorKind::kNotEnough);
    return error.what();
  }
  return "accepted";
}

TEST(MemoryPlan, HoldsAllExpertsWhereTheyFit) {
  const MemoryPlan plan = plan_memory(needs(), 16 * kGib, std::nullopt);
  EXPECT_TRUE(plan.holds_all_experts());
  EXPECT_EQ(plan.experts_budget_bytes, 1000 * 10 * kMib);
  EXPECT_EQ(plan.total_bytes(), 3 * kGib + 10000 * kMib);
  EXPECT_THAT(plan.text(), HasSubstr("1000 of 1000"));
}

TEST(MemoryPlan, OtherwiseFillsWhatTheReserveLeaves) {
  const MemoryPlan plan = plan_memory(needs(), 8 * kGib, std::nullopt);
  EXPECT_EQ(plan.reserve_bytes, kGib);
  EXPECT_EQ(plan.slot_count, 4 * kGib / (10 * kMib));
  EXPECT_THAT(plan.text(), HasSubstr("409 of 1000"));
}

TEST(MemoryPlan, TakesTheBudgetThatIsAskedFor) {
  const MemoryPlan plan = plan_memory(needs(), 16 * kGib, 95 * kMib);
  EXPECT_EQ(plan.slot_count, 9u);
  EXPECT_EQ(plan.experts_budget_bytes, 90 * kMib);
  EXPECT_EQ(plan_memory(needs(), 64 * kGib, 60 * kGib).slot_count, 1000u) << "more than all experts is all experts";
}

TEST(MemoryPlan, RefusesABudgetBelowOneLayer) {
  const std::string line = refusal(needs(), 16 * kGib, 79 * kMib);
  EXPECT_THAT(line, HasSubstr("83886080"));
  EXPECT_THAT(line, HasSubstr("--ram-budget"));
}

TEST(MemoryPlan, RefusesABudgetThatIsNotThere) {
  const std::string line = refusal(needs(), 4 * kGib, 9 * kGib);
  EXPECT_THAT(line, HasSubstr("choose --ram-budget 1069547520 or less")) << "102 slots of 10 MiB";
}

TEST(MemoryPlan, RefusesAModelThatCannotFit) {
  EXPECT_THAT(refusal(needs(), 3 * kGib, std::nullopt), HasSubstr("2.0 GiB resident weights"));
  MemoryNeeds dense = needs();
  dense.expert_count = 0;
  EXPECT_THAT(refusal(dense, 2 * kGib, std::nullopt), HasSubstr("does not fit"));
}

TEST(MemoryPlan, ADenseModelHasNoExperts) {
  MemoryNeeds dense = needs();
  dense.expert_count = 0;
  dense.record_bytes = 0;
  const MemoryPlan plan = plan_memory(dense, 8 * kGib, std::nullopt);
  EXPECT_EQ(plan.experts_budget_bytes, 0u);
  EXPECT_EQ(plan.text().find("experts"), std::string::npos);
}

TEST(MemoryPlan, SlotsAreWholePages) {
  MemoryNeeds odd = needs();
  odd.record_bytes = 4097;
  EXPECT_EQ(plan_memory(odd, 16 * kGib, kMib).slot_count, 128u);
}

TEST(MemoryPlan, SizesThatOverflowAreRefusedNotWrapped) {
  MemoryNeeds huge = needs();
  huge.resident_bytes = std::numeric_limits<uint64_t>::max() - 5;
  EXPECT_THAT(refusal(huge, 16 * kGib, std::nullopt), HasSubstr("does not fit"));
  huge = needs();
  huge.record_bytes = uint64_t{1} << 62;
  EXPECT_THAT(refusal(huge, 16 * kGib, std::nullopt), HasSubstr("does not fit"));
}

TEST(MemoryPlan, ASmallMachineKeepsASmallReserve) {
  EXPECT_EQ(reserve_bytes(512 * kMib), 128 * kMib);
  EXPECT_EQ(reserve_bytes(16 * kGib), kGib);
  EXPECT_EQ(reserve_bytes(400 * kGib), 20 * kGib);
}

}  // namespace
}  // namespace moraine::offload

#include "tools/model_plan.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quant/error.h"
#include "quant/json.h"
#include "support/test_data.h"
#include "tools/plan_report.h"

namespace moraine::tools {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kGib = 1u << 30;
constexpr int64_t kChunkRows = 512;

runtime::ModelConfig r1_config() {
  const auto file = testing::test_data("configs/deepseek-r1.json");
  return runtime::ModelConfig::parse(quant::read_text(file, 1 << 20), file);
}

PlannedModel r1(quant::DType experts = quant::DType::kQ4_K) {
  return planned_model("R1", r1_config(), experts, quant::DType::kQ8_0);
}

/// A workstation: 8 memory channels, so many drives of 7 GB/s.
MachineSpec workstation(uint64_t ram_gib, int drives = 1) {
  MachineSpec machine;
  machine.room.ram_bytes = ram_gib * kGib;
  machine.limits.compute = {.dram_read_gb_per_s = 300.0, .int8_gflop_per_s = 60000.0, .bf16_gflop_per_s = 20000.0};
  machine.limits.disk_gb_per_s = 7.0 * drives;
  machine.core_count = 32;
  return machine;
}

TEST(ModelPlan, R1InRamIsBoundByDram) {
  const ModelPlan plan = plan_model(r1(), workstation(512), {}, kChunkRows);
  EXPECT_TRUE(plan.memory().holds_all_experts());
  EXPECT_EQ(plan.memory().context_tokens, 163840);
  EXPECT_EQ(plan.hit_rate, 1.0);
  ASSERT_TRUE(plan.decode && plan.prefill);
  EXPECT_STREQ(plan.decode->bound.limit, "dram");
  EXPECT_EQ(plan.decode->disk_bytes, 0.0);
  // 11.5 GB of experts (464 of 24.8 MB) and 17 GB of resident weights in 8.5 bits.
  EXPECT_NEAR(plan.decode->memory_bytes, 28.5e9, 1.5e9);
  EXPECT_NEAR(plan.decode->bound.tokens_per_s, 300e9 / plan.decode->memory_bytes, 0.5);
  EXPECT_LT(plan.decode->tokens_per_s(), plan.decode->bound.tokens_per_s);
}

TEST(ModelPlan, LessRamIsBoundByTheDriveAndSaysWhatHelps) {
  const ModelPlan plan = plan_model(r1(), workstation(96), {}, kChunkRows);
  EXPECT_FALSE(plan.memory().holds_all_experts());
  EXPECT_LT(plan.memory().context_tokens, 163840);
  EXPECT_GE(plan.memory().context_tokens, 4096);
  ASSERT_TRUE(plan.decode);
  EXPECT_STREQ(plan.decode->bound.limit, "disk");
  EXPECT_NEAR(plan.decode->bound.tokens_per_s, 7e9 / plan.decode->disk_bytes, 1e-6);
  ASSERT_FALSE(plan.gains.empty());
  EXPECT_THAT(plan.gains.front().change, HasSubstr("GiB RAM"));
  EXPECT_GT(plan.gains.front().decode_factor, 2.0);
  const auto drives = std::find_if(plan.gains.begin(), plan.gains.end(),
                                   [](const PlannedGain& gain) { return gain.change.starts_with("twice the drives"); });
  ASSERT_NE(drives, plan.gains.end());
  EXPECT_GT(drives->decode_factor, 1.8) << "computing takes a tenth of the time, and part of it remains";
  EXPECT_LT(drives->decode_factor, 2.0);
}

TEST(ModelPlan, MoreOfAnythingIsNeverSlower) {
  double last = 0.0;
  for (const uint64_t ram_gib : {48, 64, 96, 128, 192, 256, 384, 512}) {
    const double speed = plan_model(r1(), workstation(ram_gib), {}, kChunkRows).decode->tokens_per_s();
    const double striped = plan_model(r1(), workstation(ram_gib, 4), {}, kChunkRows).decode->tokens_per_s();
    EXPECT_GE(speed, last) << ram_gib;
    EXPECT_GE(striped, speed) << ram_gib;
    last = speed;
  }
}

TEST(ModelPlan, OverridingOneThingPlansTheRestAnew) {
  const offload::MemoryWishes budget{.experts_budget_bytes = 40 * kGib};
  const ModelPlan plan = plan_model(r1(), workstation(96), budget, kChunkRows);
  EXPECT_LE(plan.memory().experts_budget_bytes, 40 * kGib);
  EXPECT_GT(plan.memory().context_tokens, plan_model(r1(), workstation(96), {}, kChunkRows).memory().context_tokens)
      << "what the experts leave serves the context";
  EXPECT_THAT(plan.gains.front().change, HasSubstr("GiB RAM"));
}

TEST(ModelPlan, EightBitExpertsAreToldOfFour) {
  const ModelPlan plan = plan_model(r1(quant::DType::kF8E4M3), workstation(256), {}, kChunkRows);
  const auto q4 = std::find_if(plan.gains.begin(), plan.gains.end(),
                               [](const PlannedGain& gain) { return gain.change == "experts in Q4_K"; });
  ASSERT_NE(q4, plan.gains.end());
  EXPECT_GT(q4->decode_factor, 2.0);
}

TEST(ModelPlan, AGpuTakesTheResidentWeights) {
  MachineSpec machine = workstation(512);
  machine.room.vram_bytes = 32 * kGib;
  const ModelPlan plan = plan_model(r1(), machine, {}, kChunkRows);
  EXPECT_EQ(plan.memory().kv_tier, offload::MemoryTier::kVram);
  const ModelPlan without = plan_model(r1(), workstation(512), {}, kChunkRows);
  EXPECT_GT(plan.decode->tokens_per_s(), 1.5 * without.decode->tokens_per_s());
}

TEST(ModelPlan, WhatAGpuNeedsCrossesPcie) {
  MachineSpec machine = workstation(512);
  EXPECT_EQ(plan_model(r1(), machine, {}, kChunkRows).decode->pcie_bytes, 0.0);
  machine.room.vram_bytes = 32 * kGib;
  const ModelPlan plan = plan_model(r1(), machine, {}, kChunkRows);
  EXPECT_EQ(plan.decode->pcie_bytes, 58 * 2 * 7168 * 4);
  MachineSpec slow = machine;
  slow.pcie_gb_per_s = 0.1;
  EXPECT_LT(plan_model(r1(), slow, {}, kChunkRows).decode->tokens_per_s(), plan.decode->tokens_per_s() * 0.8);
  slow = machine;
  slow.vram_gb_per_s = 100.0;
  EXPECT_LT(plan_model(r1(), slow, {}, kChunkRows).decode->tokens_per_s(), plan.decode->tokens_per_s() * 0.8);
  EXPECT_THAT(plan_text(r1(), machine, plan), HasSubstr("VRAM 32.0 GiB at 900 GB/s, PCIe 25 GB/s: as said or assumed"));
}

TEST(ModelPlan, PredictsTheSharesThatWereReached) {
  MachineSpec machine = workstation(512);
  const ModelPlan usual = plan_model(r1(), machine, {}, kChunkRows);
  machine.shares = {.decode_dram = 0.45, .prefill_dram = 0.23, .prefill_int8 = 0.08, .measured_with = "synthetic"};
  const ModelPlan half = plan_model(r1(), machine, {}, kChunkRows);
  EXPECT_NEAR(half.decode->tokens_per_s(), usual.decode->tokens_per_s() / 2, 1e-9);
  EXPECT_NEAR(half.prefill->tokens_per_s(), usual.prefill->tokens_per_s() / 2, 1e-9);
  EXPECT_EQ(half.decode->bound.tokens_per_s, usual.decode->bound.tokens_per_s);
  EXPECT_THAT(plan_text(r1(), machine, half), HasSubstr("decode reaches 0.45 of DRAM"));
  EXPECT_THAT(plan_text(r1(), machine, half), HasSubstr("measured here with synthetic"));
  EXPECT_EQ(plan_json(r1(), machine, half)["shares"]["prefill_int8"], 0.08);
  EXPECT_TRUE(plan_json(r1(), workstation(512), usual)["shares"]["measured_with"].is_null());
}

TEST(ModelPlan, EveryWishMovesTheRest) {
  const MachineSpec machine = workstation(96, 4);
  const ModelPlan usual = plan_model(r1(), machine, {}, kChunkRows);
  const ModelPlan longer = plan_model(r1(), machine, {.context_tokens = 163840}, kChunkRows);
  EXPECT_LT(longer.memory().slot_count, usual.memory().slot_count);
  EXPECT_LT(longer.hit_rate, usual.hit_rate);
  EXPECT_LT(longer.decode->tokens_per_s(), usual.decode->tokens_per_s());
  const PlannedModel wide = planned_model("R1", r1_config(), quant::DType::kQ4_K, quant::DType::kBF16);
  EXPECT_LT(plan_model(wide, machine, {}, kChunkRows).memory().slot_count, usual.memory().slot_count);
  const PlannedModel large = r1(quant::DType::kQ8_0);
  EXPECT_LT(plan_model(large, machine, {}, kChunkRows).memory().slot_count, usual.memory().slot_count * 6 / 10);
}

TEST(ModelPlan, WithoutADriveSpeedNothingIsGuessed) {
  MachineSpec machine = workstation(128);
  machine.limits.disk_gb_per_s.reset();
  const ModelPlan plan = plan_model(r1(), machine, {}, kChunkRows);
  EXPECT_FALSE(plan.decode);
  EXPECT_THAT(plan_text(r1(), machine, plan), HasSubstr("--nvme"));
  EXPECT_TRUE(plan_json(r1(), machine, plan)["decode"].is_null());
}

TEST(ModelPlan, WhatCannotFitIsRefusedWithNumbers) {
  try {
    plan_model(r1(), workstation(16), {}, kChunkRows);
    FAIL() << "accepted";
  } catch (const quant::Error& error) {
    EXPECT_EQ(error.kind(), quant::ErrorKind::kNotEnough);
    EXPECT_THAT(error.what(), HasSubstr("17179869184 available"));
  }
}

TEST(ModelPlan, SyntheticMachinesOfEightNodes) {
  const auto topology = offload::Topology::synthetic("pack:2 numa:4(memory=51539607552) core:8 pu:2");
  MachineSpec machine = spec_of(topology);
  machine.limits = workstation(1).limits;
  const ModelPlan plan = plan_model(r1(), machine, {}, kChunkRows);
  EXPECT_FALSE(plan.memory().holds_all_experts()) << "384 GiB, less the reserve and 17 GiB of resident weights";
  EXPECT_GT(plan.memory().slot_count, plan.memory().needs.expert_count * 9 / 10);
  EXPECT_THAT(plan_text(r1(), machine, plan), HasSubstr("64 cores, 8 NUMA nodes"));
}

TEST(ModelPlan, TwoSocketsAndSeveralDrives) {
  const auto topology = offload::Topology::synthetic("pack:2 numa:1(memory=137438953472) core:16 pu:2");
  double last = 0.0;
  for (const int drives : {1, 2, 4}) {
    MachineSpec machine = spec_of(topology);
    machine.limits = workstation(1, drives).limits;
    const ModelPlan plan = plan_model(r1(), machine, {}, kChunkRows);
    EXPECT_EQ(plan.memory().room.ram_bytes, 256 * kGib);
    EXPECT_GT(plan.decode->tokens_per_s(), 1.2 * last) << drives << " drives";
    EXPECT_THAT(plan_text(r1(), machine, plan), HasSubstr("32 cores, 2 NUMA nodes"));
    last = plan.decode->tokens_per_s();
  }
}

TEST(ModelPlan, TheLineOfRunHasThePlansNumbers) {
  EXPECT_THAT(
      expected_line(plan_model(r1(), workstation(512), {}, kChunkRows)),
      ::testing::MatchesRegex("expected: prefill [0-9.]+ tokens/s .(dram|int8)., decode [0-9.]+ tokens/s .dram."));
  EXPECT_THAT(expected_line(plan_model(r1(), workstation(128), {}, kChunkRows)), HasSubstr("tokens/s (disk), 5"));
  MachineSpec unknown = workstation(128);
  unknown.limits.disk_gb_per_s.reset();
  EXPECT_EQ(expected_line(plan_model(r1(), unknown, {}, kChunkRows)), "");
}

PlannedModel qwen7b(std::optional<quant::DType> resident) {
  const auto file = testing::test_data("configs/r1-distill-qwen-7b.json");
  return planned_model("Qwen 7B", runtime::ModelConfig::parse(quant::read_text(file, 1 << 20), file), {}, resident);
}
constexpr double kQwenFfnWeights = 3.0 * 3584 * 18944;

TEST(ModelPlan, ADenseModelThatFitsIsHeldAsAWhole) {
  const PlannedModel model = qwen7b(quant::DType::kQ8_0);
  const MachineSpec machine = workstation(32);
  const ModelPlan plan = plan_model(model, machine, {}, kChunkRows);
  EXPECT_FALSE(plan.placed.form.streams_ffns());
  EXPECT_TRUE(plan.memory().holds_all_experts());
  ASSERT_TRUE(plan.decode);
  EXPECT_STREQ(plan.decode->bound.limit, "dram");
  EXPECT_EQ(plan.decode->disk_bytes, 0.0);
  EXPECT_TRUE(plan_json(model, machine, plan)["streamed_layers"].is_null());
  EXPECT_THAT(plan_text(model, machine, plan), HasSubstr("dense FFN"));
}

TEST(ModelPlan, ADenseModelThatDoesNotFitStreamsItsFfns) {
  const PlannedModel model = qwen7b({});
  const MachineSpec machine = workstation(8);
  const ModelPlan plan = plan_model(model, machine, {}, kChunkRows);
  ASSERT_TRUE(plan.placed.form.streams_ffns());
  const int64_t kept = plan.placed.kept_layers();
  EXPECT_EQ(kept, static_cast<int64_t>(plan.memory().slot_count) - 3) << "one runs, two are read";
  EXPECT_GT(kept, 0);
  EXPECT_LE(plan.memory().total_ram_bytes(), 8 * kGib);
  ASSERT_TRUE(plan.decode && plan.prefill);
  EXPECT_STREQ(plan.decode->bound.limit, "disk");
  EXPECT_EQ(plan.hit_rate, static_cast<double>(kept) / 28);
  EXPECT_NEAR(plan.decode->disk_bytes, static_cast<double>(28 - kept) * kQwenFfnWeights * 2, 1e6);
  EXPECT_NEAR(plan.decode->tokens_per_s(), 7e9 * machine.shares.disk / plan.decode->disk_bytes, 1e-6)
      << "the drive and the cores go side by side";
  EXPECT_NEAR(plan.prefill->disk_bytes, plan.decode->disk_bytes / kChunkRows, 1.0) << "once per chunk";
  const std::string text = plan_text(model, machine, plan);
  EXPECT_THAT(text,
              HasSubstr(fmt::format("those of {} of 28 layers stay, {} are read for every token", kept, 28 - kept)));
  EXPECT_THAT(text, ::testing::Not(HasSubstr("dense FFN ")));
  const quant::Json json = plan_json(model, machine, plan);
  EXPECT_EQ(json["streamed_layers"]["kept"], kept);
  EXPECT_EQ(json["streamed_layers"]["read"], 28 - kept);
  EXPECT_THAT(plan.gains.front().change, HasSubstr("GiB RAM"));
}

TEST(ModelPlan, WhatADenseModelReadsIsAsItIsStored) {
  const offload::MemoryWishes budget{.experts_budget_bytes = kGib};
  const ModelPlan stored = plan_model(qwen7b({}), workstation(32), budget, kChunkRows);
  const ModelPlan smaller = plan_model(qwen7b(quant::DType::kQ4_K), workstation(32), budget, kChunkRows);
  ASSERT_TRUE(stored.placed.form.streams_ffns() && smaller.placed.form.streams_ffns());
  EXPECT_GT(smaller.memory().slot_count, 3 * stored.memory().slot_count) << "4.5 bits, 16 bits";
  EXPECT_EQ(smaller.placed.form.read_bytes_per_record, stored.placed.form.read_bytes_per_record);
  EXPECT_NEAR(stored.placed.form.read_bytes_per_record, kQwenFfnWeights * 2, 1e6);
  EXPECT_LT(smaller.decode->disk_bytes, stored.decode->disk_bytes) << "more of them stay in RAM";
}

TEST(ModelPlan, TextAndJsonSayTheSame) {
  const PlannedModel model = r1();
  const MachineSpec machine = workstation(128, 2);
  const ModelPlan plan = plan_model(model, machine, {}, kChunkRows);
  const std::string text = plan_text(model, machine, plan);
  for (const char* part :
       {"attention", "KV cache", "routed experts", "decode", "prefill", "by disk", "what would gain"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  const quant::Json json = plan_json(model, machine, plan);
  EXPECT_EQ(json["experts"]["slots"], plan.memory().slot_count);
  EXPECT_EQ(json["decode"]["bound"], "disk");
  EXPECT_EQ(json["machine"]["disk_gb_per_s"], 14.0);
  EXPECT_EQ(json["groups"].size(), plan.memory().tiers.size());
}

TEST(ExpectedHitRate, GrowsFromNothingToAll) {
  EXPECT_EQ(expected_hit_rate(0.0), 0.0);
  EXPECT_EQ(expected_hit_rate(1.0), 1.0);
  double last = 0.0;
  for (double fraction = 0.05; fraction < 1.0; fraction += 0.05) {
    EXPECT_GE(expected_hit_rate(fraction), last);
    last = expected_hit_rate(fraction);
  }
}

}  // namespace
}  // namespace moraine::tools

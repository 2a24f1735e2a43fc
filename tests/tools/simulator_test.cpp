#include "tools/simulator.h"

#include <gtest/gtest.h>

#include "quant/error.h"
#include "quant/json.h"
#include "support/test_data.h"
#include "tools/model_plan.h"
#include "tools/simulation.h"

namespace moraine::tools {
namespace {

constexpr RoutingShape kSmall{.moe_layers = 4, .n_experts = 64, .top_k = 4};

/// 10 ms per record, 1 ms per expert, 1 ms per layer's dense part.
SimulatedMachine machine(int slots) {
  return {.slot_count = slots,
          .record_bytes = 1e6,
          .disk_bytes_per_s = 1e8,
          .read_latency_s = 0.0,
          .layer_dense_s = 1e-3,
          .expert_s = 1e-3,
          .recall = 0.0};
}

SimulationResult run(const SimulatedMachine& machine, const RoutingStatistics& statistics = {}) {
  SyntheticRouting routing(kSmall, statistics, 5);
  return Simulator(machine, routing).run(1000, 200);
}

TEST(Simulator, EverythingInRamIsComputation) {
  const SimulationResult result = run(machine(256));
  EXPECT_EQ(result.misses, 0u);
  EXPECT_EQ(result.stall_s, 0.0);
  EXPECT_NEAR(result.tokens_per_s(), 1.0 / (4 * (1e-3 + 4 * 1e-3)), 1e-6);
}

TEST(Simulator, MissesCostTheDriveTime) {
  // Two tokens that share nothing, in slots for one layer alone: every record is read for every token.
  std::vector<int32_t> choices;
  for (int32_t token = 0; token < 2; ++token) {
    for (int layer = 0; layer < 4; ++layer) {
      for (int32_t i = 0; i < 4; ++i) choices.push_back(token * 4 + i);
    }
  }
  RecordedRouting routing(kSmall, choices);
  const SimulationResult result = Simulator(machine(4), routing).run(4, 10);
  EXPECT_EQ(result.hits, 0u);
  EXPECT_EQ(result.misses, 160u);
  // Per layer: 1 ms dense, four records of 10 ms one after the other, the last one's computation.
  EXPECT_NEAR(result.total_s, 10 * 4 * (1e-3 + 4 * 10e-3 + 1e-3), 1e-9);
  EXPECT_NEAR(result.disk_busy_s, 160 * 10e-3, 1e-9);
}

TEST(Simulator, TheSameSeedGivesTheSameResult) {
  SimulatedMachine predicted = machine(100);
  predicted.recall = 0.7;
  predicted.layer_dense_s = 20e-3;  // time for some hints
  const SimulationResult a = run(predicted), b = run(predicted);
  EXPECT_EQ(a.total_s, b.total_s);
  EXPECT_EQ(a.misses, b.misses);
  predicted.seed = 9;
  EXPECT_NE(run(predicted).total_s, a.total_s);
}

TEST(Simulator, MoreSlotsAndFasterDrivesAreNeverSlower) {
  double last = 0.0;
  for (const int slots : {16, 64, 128, 192, 256}) {
    const double speed = run(machine(slots)).tokens_per_s();
    EXPECT_GE(speed, last) << slots;
    last = speed;
    SimulatedMachine faster = machine(slots);
    faster.disk_bytes_per_s *= 4.0;
    EXPECT_GE(run(faster).tokens_per_s(), speed) << slots;
  }
}

TEST(Simulator, PredictionFillsTheIdleDrive) {
  SimulatedMachine idle = machine(128);
  idle.layer_dense_s = 50e-3;  // time enough to read four records
  const SimulationResult without = run(idle);
  idle.recall = 0.75;
  const SimulationResult with = run(idle);
  EXPECT_GT(without.stall_s, 0.0);
  EXPECT_LT(with.stall_s, 0.5 * without.stall_s);
  EXPECT_GT(with.tokens_per_s(), without.tokens_per_s());
  EXPECT_GT(with.useful_prefetches, 0u);
  EXPECT_GT(with.prefetches, with.useful_prefetches) << "some are wrong";
}

TEST(Simulator, OnASaturatedDrivePredictionCostsLittle) {
  const double without = run(machine(128)).tokens_per_s();
  SimulatedMachine predicted = machine(128);
  predicted.recall = 0.5;
  EXPECT_GT(run(predicted).tokens_per_s(), 0.98 * without);
}

TEST(Simulator, LocalityMakesHits) {
  EXPECT_GT(run(machine(64), {.skew = 0.5, .overlap = 0.6}).hit_rate(),
            run(machine(64), {.skew = 0.5, .overlap = 0.2}).hit_rate() + 0.05);
}

PlannedModel r1() {
  const auto file = testing::test_data("configs/deepseek-r1.json");
  return planned_model("R1", runtime::ModelConfig::parse(quant::read_text(file, 1 << 20), file), quant::DType::kQ4_K,
                       quant::DType::kQ8_0);
}

MachineSpec workstation(uint64_t ram_gb) {
  MachineSpec spec;
  spec.room.ram_bytes = ram_gb * 1'000'000'000;
  spec.limits = {.compute = {.dram_read_gb_per_s = 250.0}, .disk_gb_per_s = 7.0};
  return spec;
}

TEST(Simulation, R1InRamRunsAtTheSpeedPlanned) {
  const SimulatedMachine simulated = simulated_machine(r1(), workstation(512), {}, 512);
  const SimulationResult result =
      simulate(simulated, routing_shape(r1().config()), {.warm_up_tokens = 400, .tokens = 20});
  const ModelPlan plan = plan_model(r1(), workstation(512), {}, 512);
  EXPECT_NEAR(result.tokens_per_s() / plan.decode->tokens_per_s(), 1.0, 0.1);
}

TEST(Simulation, TheHitRateOfThePlanIsTheSimulators) {
  for (const uint64_t ram_gb : {128, 256}) {
    const SimulatedMachine simulated = simulated_machine(r1(), workstation(ram_gb), {}, 512);
    const SimulationResult result =
        simulate(simulated, routing_shape(r1().config()), {.recall = 0.0, .warm_up_tokens = 400, .tokens = 100});
    EXPECT_NEAR(result.hit_rate(), plan_model(r1(), workstation(ram_gb), {}, 512).hit_rate, 0.05) << ram_gb;
  }
}

/// The plan has a formula where the simulator has a drive and a cache.
TEST(Simulation, TheSpeedOfThePlanIsTheSimulators) {
  for (const uint64_t ram_gb : {128, 192, 256, 384}) {
    for (const int drives : {1, 4}) {
      MachineSpec machine = workstation(ram_gb);
      *machine.limits.disk_gb_per_s *= drives;
      const SimulatedMachine simulated = simulated_machine(r1(), machine, {}, 512);
      const SimulationResult result =
          simulate(simulated, routing_shape(r1().config()), {.warm_up_tokens = 600, .tokens = 60});
      const double planned = plan_model(r1(), machine, {}, 512).decode->tokens_per_s();
      EXPECT_NEAR(planned / result.tokens_per_s(), 1.0, 0.15) << ram_gb << " GB, " << drives << " drives";
    }
  }
}

TEST(Simulation, UnknownSpeedsAreRefused) {
  MachineSpec spec = workstation(128);
  spec.limits.disk_gb_per_s.reset();
  EXPECT_THROW(simulated_machine(r1(), spec, {}, 512), quant::Error);
}

}  // namespace
}  // namespace moraine::tools

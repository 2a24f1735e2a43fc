#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "quant/json.h"
#include "tools/machine_spec.h"
#include "tools/model_plan.h"
#include "tools/planned_model.h"
#include "tools/simulator.h"

namespace moraine::tools {

/// How a simulation is run.
struct SimulationOptions {
  RoutingStatistics statistics = {};   ///< of a routing that was not recorded
  std::vector<int32_t> recorded = {};  ///< choices [tokens × moe_layers × top_k]; empty: made from the statistics
  double recall = 0.75;
  uint64_t warm_up_tokens = 2000;
  uint64_t tokens = 500;
  uint64_t seed = 1;
};

RoutingShape routing_shape(const runtime::ModelConfig& config);

/// The machine a simulation runs on: slots as planned, times of a decoded token from bytes ÷ DRAM speed × the measured
/// efficiency. Throws quant::Error as plan_memory(), and kUsage if the speed of DRAM or drive is not known.
SimulatedMachine simulated_machine(const PlannedModel& model, const MachineSpec& machine,
                                   const offload::MemoryWishes& wishes, int64_t chunk_rows);

/// Runs one simulation.
SimulationResult simulate(const SimulatedMachine& machine, const RoutingShape& shape, const SimulationOptions& options);

/// One cell of the table: so much RAM, so many drives.
struct SimulatedCell {
  double ram_gb = 0.0;
  int drives = 0;
  std::optional<SimulationResult> result;  ///< nothing if the model does not fit
  double held_fraction = 0.0;              ///< of all experts in RAM
};
std::vector<SimulatedCell> simulate_table(const PlannedModel& model, const MachineSpec& one_drive,
                                          const SimulationOptions& options, int64_t chunk_rows);

std::string simulation_text(const SimulationResult& result);
std::string table_text(const std::vector<SimulatedCell>& cells);
quant::Json simulation_json(const SimulationResult& result);

}  // namespace moraine::tools

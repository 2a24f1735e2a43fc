#include "tools/simulation.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "quant/error.h"
#include "tools/model_costs.h"
#include "tools/model_sizes.h"

namespace moraine::tools {
namespace {

constexpr double kTableRamGb[] = {64, 128, 192, 256, 384};
constexpr int kTableDrives[] = {1, 2, 3, 4};

}  // namespace

RoutingShape routing_shape(const runtime::ModelConfig& config) {
  const int64_t moe_layers =
      config.has_experts() ? std::max<int64_t>(0, config.num_hidden_layers - config.first_k_dense_replace) : 0;
  return {.moe_layers = static_cast<int>(moe_layers),
          .n_experts = static_cast<int>(config.n_routed_experts),
          .top_k = static_cast<int>(config.num_experts_per_tok)};
}

SimulatedMachine simulated_machine(const PlannedModel& model, const MachineSpec& machine,
                                   const offload::MemoryWishes& wishes, int64_t chunk_rows) {
  const auto dram = machine.limits.compute.dram_read_gb_per_s;
  const auto disk = machine.limits.disk_gb_per_s;
  if (!dram || !disk) {
    throw quant::Error(quant::ErrorKind::kUsage,
                       {.what = "the speed of memory or drive is not known",
                        .action = "give --dram and --nvme, e.g. --dram 250GB/s --nvme 7GB/s"});
  }
  const offload::MemoryPlan plan = offload::plan_memory(
      memory_needs(*model.whole.shape, model.whole.source.layouts, chunk_rows), machine.room, wishes);
  const runtime::ModelConfig& config = model.config();
  const RoutingShape shape = routing_shape(config);
  if (shape.moe_layers == 0) {
    throw quant::Error(quant::ErrorKind::kUsage, {.what = "this model has no routed experts: nothing to simulate"});
  }
  const StepCosts costs =
      ModelCosts(*model.whole.shape, model.whole.source.layouts).decode(static_cast<double>(kPlannedDecodeContext));
  const double dram_bytes_per_s = *dram * 1e9 * machine.shares.decode_dram;
  const auto seconds = [&](LayerKind kind) { return costs[kind].weight_bytes / dram_bytes_per_s; };
  const auto layers = static_cast<double>(config.num_hidden_layers);
  const auto moe_layers = static_cast<double>(shape.moe_layers);
  const double attention_s = seconds(LayerKind::kAttention) / layers;
  return {.slot_count = static_cast<int>(plan.slot_count),
          .record_bytes = static_cast<double>(plan.slot_bytes),
          .disk_bytes_per_s = *disk * 1e9 * machine.shares.disk,
          .layer_dense_s = attention_s + seconds(LayerKind::kRoute) / moe_layers,
          .layer_shared_s = seconds(LayerKind::kShared) / moe_layers,
          .expert_s = seconds(LayerKind::kRouted) / moe_layers / static_cast<double>(shape.top_k),
          .other_s = attention_s * (layers - moe_layers) + seconds(LayerKind::kDenseFfn) + seconds(LayerKind::kHead) +
                     seconds(LayerKind::kEmbed)};
}

SimulationResult simulate(const SimulatedMachine& machine, const RoutingShape& shape,
                          const SimulationOptions& options) {
  std::unique_ptr<RoutingSource> routing;
  if (options.recorded.empty()) {
    routing = std::make_unique<SyntheticRouting>(shape, options.statistics, options.seed);
  } else {
    routing = std::make_unique<RecordedRouting>(shape, options.recorded);
  }
  SimulatedMachine predicted = machine;
  predicted.recall = options.recall;
  predicted.seed = options.seed;
  return Simulator(predicted, *routing).run(options.warm_up_tokens, options.tokens);
}

std::vector<SimulatedCell> simulate_table(const PlannedModel& model, const MachineSpec& one_drive,
                                          const SimulationOptions& options, int64_t chunk_rows) {
  std::vector<SimulatedCell> cells;
  const RoutingShape shape = routing_shape(model.config());
  for (const double ram_gb : kTableRamGb) {
    for (const int drives : kTableDrives) {
      MachineSpec machine = one_drive;
      machine.room.ram_bytes = static_cast<uint64_t>(ram_gb * 1e9);
      if (machine.limits.disk_gb_per_s) *machine.limits.disk_gb_per_s *= drives;
      SimulatedCell cell{.ram_gb = ram_gb, .drives = drives, .result = std::nullopt};
      try {
        const SimulatedMachine simulated = simulated_machine(model, machine, {}, chunk_rows);
        cell.held_fraction = static_cast<double>(simulated.slot_count) / (shape.moe_layers * shape.n_experts);
        cell.result = simulate(simulated, shape, options);
      } catch (const quant::Error& error) {
        if (error.kind() != quant::ErrorKind::kNotEnough) throw;
      }
      cells.push_back(cell);
    }
  }
  return cells;
}

std::string simulation_text(const SimulationResult& result) {
  const auto tokens = static_cast<double>(result.tokens);
  return fmt::format(
      "decode       {:.2f} tokens/s\nhits         {:.1f} %, {:.1f} misses and {:.1f} late prefetches per token\n"
      "prefetches   {:.1f} per token, {:.0f} % of them wanted\nstall        {:.1f} ms per token, {:.0f} % of the time\n"
      "drive busy   {:.0f} % of the time\n",
      result.tokens_per_s(), 100.0 * result.hit_rate(), static_cast<double>(result.misses) / tokens,
      static_cast<double>(result.late_prefetches) / tokens, static_cast<double>(result.prefetches) / tokens,
      result.prefetches > 0
          ? 100.0 * static_cast<double>(result.useful_prefetches) / static_cast<double>(result.prefetches)
          : 0.0,
      1e3 * result.stall_s / tokens, 100.0 * result.stall_s / result.total_s,
      100.0 * result.disk_busy_s / result.total_s);
}

std::string table_text(const std::vector<SimulatedCell>& cells) {
  std::string text = "| RAM | experts in RAM | hits |";
  for (const int drives : kTableDrives) text += fmt::format(" {} drive{} |", drives, drives == 1 ? "" : "s");
  text += "\n|---|---|---|---|---|---|---|\n";
  for (size_t row = 0; row < std::size(kTableRamGb); ++row) {
    const SimulatedCell& first = cells[row * std::size(kTableDrives)];
    text += fmt::format("| {:.0f} GB | {:.0f} % | {} |", first.ram_gb, 100.0 * first.held_fraction,
                        first.result ? fmt::format("{:.0f} %", 100.0 * first.result->hit_rate()) : "-");
    for (size_t drive = 0; drive < std::size(kTableDrives); ++drive) {
      const SimulatedCell& cell = cells[row * std::size(kTableDrives) + drive];
      text += cell.result ? fmt::format(" {:.1f} |", cell.result->tokens_per_s()) : " does not fit |";
    }
    text += "\n";
  }
  return text;
}

quant::Json simulation_json(const SimulationResult& result) {
  return {{"tokens", result.tokens},
          {"tokens_per_s", result.tokens_per_s()},
          {"hit_rate", result.hit_rate()},
          {"misses", result.misses},
          {"late_prefetches", result.late_prefetches},
          {"prefetches", result.prefetches},
          {"useful_prefetches", result.useful_prefetches},
          {"stall_s", result.stall_s},
          {"disk_busy_s", result.disk_busy_s},
          {"total_s", result.total_s}};
}

}  // namespace moraine::tools

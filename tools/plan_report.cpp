#include "tools/plan_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "tools/byte_size.h"

namespace moraine::tools {
namespace {

constexpr size_t kMostGains = 4;

std::string number(const std::optional<double>& value, const char* unit) {
  return value ? fmt::format("{:.4g} {}", *value, unit) : "not known";
}

std::string speed_line(const char* name, const std::optional<SpeedEstimate>& speed, const std::string& note) {
  if (!speed) return fmt::format("  {:<8} not known: the drive's speed was not measured (--nvme DIR or 7GB/s)\n", name);
  return fmt::format("  {:<8} {:.3g} tokens/s  (bound {:.3g} by {}, times {:.2f}; {} of weights{} per token){}\n", name,
                     speed->tokens_per_s(), speed->bound.tokens_per_s, speed->bound.limit, speed->efficiency,
                     byte_size_text(static_cast<uint64_t>(speed->memory_bytes)),
                     speed->disk_bytes > 0.0
                         ? ", " + byte_size_text(static_cast<uint64_t>(speed->disk_bytes)) + " from the drive"
                         : "",
                     note);
}

std::string shares_text(const ReachedShares& shares) {
  const std::string source = shares.measured_with.empty()
                                 ? "as measured for docs/benchmarks.md; `moraine bench MODEL` measures them here"
                                 : fmt::format("measured here with {}", shares.measured_with);
  return fmt::format(
      "  of these decode reaches {:.2f} of DRAM, prefill {:.2f} of DRAM or {:.2f} of int8, both {:.2f} of the drive\n"
      "  ({})\n",
      shares.decode_dram, shares.prefill_dram, shares.prefill_int8, shares.disk, source);
}

std::string vram_text(const MachineSpec& machine) {
  if (machine.room.vram_bytes == 0) return "";
  return fmt::format(
      "  VRAM {} at {:.4g} GB/s, PCIe {:.4g} GB/s: as said or assumed, not measured; Moraine does not compute on a GPU "
      "yet\n",
      byte_size_text(machine.room.vram_bytes), machine.vram_gb_per_s, machine.pcie_gb_per_s);
}

/// How many FFNs of a dense model stay in RAM.
std::string streamed_text(const PlacedModel& placed) {
  const auto layers = static_cast<int64_t>(placed.form.shape->layers.size());
  const int64_t kept = placed.kept_layers();
  const std::string size =
      fmt::format("{} each, {}", byte_size_text(placed.memory.slot_bytes), placed.form.source.type_name);
  if (kept == layers) return fmt::format("RAM, all {} ({})", layers, size);
  return fmt::format("RAM: those of {} of {} layers stay, {} are read for every token ({})", kept, layers,
                     layers - kept, size);
}

std::string experts_text(const PlacedModel& placed) {
  const offload::MemoryPlan& memory = placed.memory;
  const std::string size = fmt::format("{} each, {}", byte_size_text(memory.slot_bytes), placed.form.source.type_name);
  if (memory.holds_all_experts()) return fmt::format("RAM, all {} ({})", memory.slot_count, size);
  return fmt::format("RAM, {} of {} ({}); all on NVMe, {}", memory.slot_count, memory.needs.expert_count, size,
                     byte_size_text(memory.needs.expert_count * memory.slot_bytes));
}

std::string tiers_text(const ModelPlan& plan) {
  const offload::MemoryPlan& memory = plan.memory();
  std::string text;
  const auto row = [&](const std::string& name, uint64_t size_bytes, const std::string& note) {
    text += fmt::format("  {:<16} {:>12}  {}\n", name, byte_size_text(size_bytes), note);
  };
  for (size_t i = 0; i < memory.tiers.size(); ++i) {
    const offload::ResidentGroup& group = memory.needs.resident[i];
    if (group.size_bytes > 0) row(group.name, group.size_bytes, memory_tier_name(memory.tiers[i]));
  }
  row("KV cache", memory.kv_bytes,
      fmt::format("{}, {} of {} tokens", memory_tier_name(memory.kv_tier), memory.context_tokens,
                  memory.needs.max_context_tokens));
  row("scratch", memory.needs.scratch_bytes, "RAM");
  if (memory.needs.expert_count > 0) {
    const bool streams = plan.placed.form.streams_ffns();
    row(streams ? "FFNs of layers" : "routed experts", memory.experts_budget_bytes,
        streams ? streamed_text(plan.placed) : experts_text(plan.placed));
  }
  row("in all", memory.total_ram_bytes(),
      fmt::format(
          "of {} RAM{}", byte_size_text(memory.room.ram_bytes),
          memory.reserve_bytes > 0 ? fmt::format(", {} left to others", byte_size_text(memory.reserve_bytes)) : ""));
  return text;
}

quant::Json speed_json(const std::optional<SpeedEstimate>& speed) {
  if (!speed) return nullptr;
  return {{"tokens_per_s", speed->tokens_per_s()},           {"bound", speed->bound.limit},
          {"bound_tokens_per_s", speed->bound.tokens_per_s}, {"efficiency", speed->efficiency},
          {"memory_bytes_per_token", speed->memory_bytes},   {"disk_bytes_per_token", speed->disk_bytes},
          {"pcie_bytes_per_token", speed->pcie_bytes}};
}

/// Of a dense model whose FFNs are records: how many layers keep theirs in RAM, and how many do not.
quant::Json streamed_json(const PlacedModel& placed) {
  const auto layers = static_cast<int64_t>(placed.form.shape->layers.size());
  return {{"kept", placed.kept_layers()}, {"read", layers - placed.kept_layers()}};
}

quant::Json or_null(const std::optional<double>& value) {
  return value ? quant::Json(*value) : quant::Json();
}

}  // namespace

std::string plan_text(const PlannedModel& model, const MachineSpec& machine, const ModelPlan& plan) {
  std::string text = fmt::format("{}\nmachine\n  {} RAM to be had, {} cores, {} NUMA node{}\n", model.name,
                                 byte_size_text(machine.room.ram_bytes), machine.core_count, machine.numa_node_count,
                                 machine.numa_node_count == 1 ? "" : "s");
  const cpu::MachineLimits& compute = machine.limits.compute;
  text += fmt::format("  DRAM {}, drive {}, int8 {}\n", number(compute.dram_read_gb_per_s, "GB/s"),
                      number(machine.limits.disk_gb_per_s, "GB/s"), number(compute.int8_gflop_per_s, "GFLOP/s"));
  text += vram_text(machine) + shares_text(machine.shares);
  text += "\nplan\n" + tiers_text(plan);
  text += "\nexpected\n";
  text += speed_line("decode", plan.decode,
                     plan.memory().holds_all_experts() ? "" : fmt::format("; {:.0f} % hits", plan.hit_rate * 100.0));
  text += speed_line("prefill", plan.prefill, "");
  if (plan.gains.empty()) return text;
  text += "\nwhat would gain most\n";
  for (size_t i = 0; i < std::min(plan.gains.size(), kMostGains); ++i) {
    const PlannedGain& gain = plan.gains[i];
    text +=
        fmt::format("  {:<32} decode ×{:.2f}, prefill ×{:.2f}\n", gain.change, gain.decode_factor, gain.prefill_factor);
  }
  return text;
}

std::string expected_line(const ModelPlan& plan) {
  std::string line;
  const auto add = [&](const char* name, const std::optional<SpeedEstimate>& speed) {
    if (!speed) return;
    line += fmt::format("{}{} {:.3g} tokens/s ({})", line.empty() ? "expected: " : ", ", name, speed->tokens_per_s(),
                        speed->bound.limit);
  };
  add("prefill", plan.prefill);
  add("decode", plan.decode);
  if (!line.empty() && !plan.memory().holds_all_experts())
    line += fmt::format(", {:.0f} % hits", 100.0 * plan.hit_rate);
  return line;
}

quant::Json plan_json(const PlannedModel& model, const MachineSpec& machine, const ModelPlan& plan) {
  const offload::MemoryPlan& memory = plan.memory();
  quant::Json groups = quant::Json::array();
  for (size_t i = 0; i < memory.tiers.size(); ++i) {
    groups.push_back({{"name", memory.needs.resident[i].name},
                      {"bytes", memory.needs.resident[i].size_bytes},
                      {"tier", memory_tier_name(memory.tiers[i])}});
  }
  quant::Json gains = quant::Json::array();
  for (const PlannedGain& gain : plan.gains) {
    gains.push_back(
        {{"change", gain.change}, {"decode_factor", gain.decode_factor}, {"prefill_factor", gain.prefill_factor}});
  }
  const BenchLimits& limits = machine.limits;
  return {{"model", {{"name", model.name}, {"experts", plan.placed.form.source.type_name}}},
          {"machine",
           {{"ram_bytes", machine.room.ram_bytes},
            {"vram_bytes", machine.room.vram_bytes},
            {"cores", machine.core_count},
            {"numa_nodes", machine.numa_node_count},
            {"dram_read_gb_per_s", or_null(limits.compute.dram_read_gb_per_s)},
            {"int8_gflop_per_s", or_null(limits.compute.int8_gflop_per_s)},
            {"bf16_gflop_per_s", or_null(limits.compute.bf16_gflop_per_s)},
            {"disk_gb_per_s", or_null(limits.disk_gb_per_s)},
            {"vram_gb_per_s", machine.room.vram_bytes > 0 ? quant::Json(machine.vram_gb_per_s) : quant::Json()},
            {"pcie_gb_per_s", machine.room.vram_bytes > 0 ? quant::Json(machine.pcie_gb_per_s) : quant::Json()}}},
          {"shares",
           {{"decode_dram", machine.shares.decode_dram},
            {"prefill_dram", machine.shares.prefill_dram},
            {"prefill_int8", machine.shares.prefill_int8},
            {"disk", machine.shares.disk},
            {"measured_with",
             machine.shares.measured_with.empty() ? quant::Json() : quant::Json(machine.shares.measured_with)}}},
          {"groups", std::move(groups)},
          {"kv",
           {{"bytes", memory.kv_bytes},
            {"context_tokens", memory.context_tokens},
            {"max_context_tokens", memory.needs.max_context_tokens},
            {"tier", memory_tier_name(memory.kv_tier)}}},
          {"experts",
           {{"budget_bytes", memory.experts_budget_bytes},
            {"slots", memory.slot_count},
            {"count", memory.needs.expert_count},
            {"record_bytes", memory.needs.record_bytes},
            {"hit_rate", plan.hit_rate}}},
          {"streamed_layers", plan.placed.form.streams_ffns() ? streamed_json(plan.placed) : quant::Json()},
          {"scratch_bytes", memory.needs.scratch_bytes},
          {"reserve_bytes", memory.reserve_bytes},
          {"total_ram_bytes", memory.total_ram_bytes()},
          {"decode", speed_json(plan.decode)},
          {"prefill", speed_json(plan.prefill)},
          {"gains", std::move(gains)}};
}

}  // namespace moraine::tools

#include <fmt/format.h>

#include <CLI/Formatter.hpp>
#include <CLI/Validators.hpp>
#include <memory>

#include "cpu/cpu_backend.h"
#include "quant/error.h"
#include "tools/byte_size.h"
#include "tools/commands.h"
#include "tools/console.h"
#include "tools/exit_codes.h"
#include "tools/simulation.h"
#include "tools/stats_json.h"
#include "tools/synth_presets.h"
#include "tools/trace_file.h"

namespace moraine::tools {
namespace {

constexpr const char* kFullVocabulary = "129280";  // presets are cut for measuring
constexpr double kUsualDramGbPerS = 250.0;         // 8 channels of DDR5-4800, as read

struct SimulateCommand {
  std::filesystem::path model;  ///< empty: R1
  std::optional<quant::DType> experts = quant::DType::kQ4_K;
  std::optional<quant::DType> resident = quant::DType::kQ8_0;
  EngineOptions memory;  ///< of it, --ram-budget and --context
  std::filesystem::path trace;
  std::optional<uint64_t> ram_bytes;
  double dram_gb_per_s = kUsualDramGbPerS;
  std::optional<double> nvme_gb_per_s;
  int drives = 1;
  SimulationOptions options;
  bool table = false;
  bool json = false;
};

PlannedModel model_of(const SimulateCommand& command) {
  if (!command.model.empty()) return open_planned_model(command.model, command.experts, command.resident);
  const SynthPreset& preset = find_synth_preset("r1-671b");
  std::string json(preset.config_json);
  json.insert(json.rfind('}'),
              fmt::format(R"(, "vocab_size": {}, "num_hidden_layers": {}, "first_k_dense_replace": {})",
                          kFullVocabulary, preset.dense_layers + preset.moe_layers, preset.dense_layers));
  return planned_model("DeepSeek-R1", runtime::ModelConfig::parse(json, "r1-671b"), command.experts, command.resident);
}

/// A recorded routing of the model's own shape is driven as it is; of another, only its statistics are.
void use_trace(const RoutingTrace& trace, const RoutingShape& shape, SimulationOptions& options, Console& console) {
  const RoutingStatistics found = statistics_of(trace.shape, trace.choices);
  const size_t tokens =
      trace.choices.size() / (static_cast<size_t>(trace.shape.moe_layers) * static_cast<size_t>(trace.shape.top_k));
  if (trace.shape == shape) {
    options.recorded = trace.choices;
    console.line(fmt::format("routing of {} tokens as recorded", tokens));
    return;
  }
  options.statistics = found;
  console.line(
      fmt::format("the trace is of another shape ({} layers, top-{} of {}): made up with its statistics, "
                  "skew {:.2f}, overlap {:.2f} over {} tokens",
                  trace.shape.moe_layers, trace.shape.top_k, trace.shape.n_experts, found.skew, found.overlap, tokens));
}

int run_simulation(const SimulateCommand& command, Console& console) {
  const PlannedModel model = model_of(command);
  SimulationOptions options = command.options;
  if (!command.trace.empty()) {
    use_trace(read_routing(command.trace), routing_shape(model.config()), options, console);
  }
  MachineSpec machine;
  machine.limits.compute.dram_read_gb_per_s = command.dram_gb_per_s;
  machine.limits.disk_gb_per_s = *command.nvme_gb_per_s;
  const int64_t chunk_rows = cpu::CpuOptions().max_rows;
  if (command.table) {
    console.out(table_text(simulate_table(model, machine, options, chunk_rows)));
    return kExitOk;
  }
  if (!command.ram_bytes) {
    throw quant::Error(quant::ErrorKind::kUsage,
                       {.what = "--ram is missing", .action = "e.g. --ram 128GiB, or --table"});
  }
  machine.room.ram_bytes = *command.ram_bytes;
  *machine.limits.disk_gb_per_s *= command.drives;
  const SimulatedMachine simulated = simulated_machine(
      model, machine,
      {.experts_budget_bytes = command.memory.ram_budget_bytes, .context_tokens = command.memory.context_tokens},
      chunk_rows);
  const RoutingShape shape = routing_shape(model.config());
  console.line(fmt::format("{}: {} of {} experts in RAM, DRAM {:.0f} GB/s, drives {:.1f} GB/s, recall {:.2f}",
                           model.name, simulated.slot_count, shape.moe_layers * shape.n_experts, command.dram_gb_per_s,
                           *machine.limits.disk_gb_per_s, options.recall));
  const SimulationResult result = simulate(simulated, shape, options);
  console.out(command.json ? json_text(simulation_json(result)) : simulation_text(result));
  return kExitOk;
}

double speed_of(const std::string& text) {
  const std::optional<double> speed = parse_speed_gb_per_s(text);
  if (speed) return *speed;
  throw quant::Error(quant::ErrorKind::kUsage,
                     {.what = "not a speed", .item = quant::printable(text), .expected = "e.g. 11GB/s"});
}

void add_machine_flags(CLI::App& command, const std::shared_ptr<SimulateCommand>& options) {
  command
      .add_option_function<std::string>(
          "--ram", [options](const std::string& text) { options->ram_bytes = parse_byte_size(text); }, "Free RAM")
      ->type_name("SIZE");
  command
      .add_option_function<std::string>(
          "--nvme", [options](const std::string& text) { options->nvme_gb_per_s = speed_of(text); },
          "Read speed of one drive, e.g. 11GB/s")
      ->type_name("SPEED")
      ->required();
  command.add_option("--drives", options->drives, "Drives, each with every second, third, … record (default: 1)")
      ->type_name("N")
      ->check(CLI::Range(1, 64).description(""));
  command
      .add_option_function<std::string>(
          "--dram", [options](const std::string& text) { options->dram_gb_per_s = speed_of(text); },
          "Read speed of the RAM (default: 250GB/s)")
      ->type_name("SPEED");
}

void add_run_flags(CLI::App& command, SimulationOptions& options) {
  const auto share = CLI::Range(0.0, 1.0).description("");
  command
      .add_option("--recall", options.recall,
                  "Share of the next layer's experts that prediction finds; 0 = no\nprediction (default: 0.75, as "
                  "published for R1)")
      ->type_name("R")
      ->check(share);
  command.add_option("--skew", options.statistics.skew, "Of a routing made up: Zipf exponent per layer (default: 0.5)")
      ->type_name("S")
      ->check(CLI::Range(0.0, 4.0).description(""));
  command
      .add_option("--overlap", options.statistics.overlap,
                  "Of a routing made up: share of a token's experts that the token\nbefore chose, too (default: 0.35)")
      ->type_name("O")
      ->check(share);
  command.add_option("--warm-up", options.warm_up_tokens, "Tokens decoded before those measured (default: 2000)")
      ->type_name("N")
      ->check(CLI::Range(uint64_t{0}, uint64_t{1} << 32).description(""));
  command.add_option("--tokens", options.tokens, "Tokens measured (default: 500)")
      ->type_name("N")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 32).description(""));
  command.add_option("--seed", options.seed, "Number that fixes everything random (default: 1)")->type_name("S");
}

}  // namespace

void add_simulate_command(CLI::App& app, Command& chosen) {
  CLI::App* command =
      app.add_subcommand("simulate", "Decode in virtual time on a machine you do not have: tokens/s, hits, stalls");
  const auto options = std::make_shared<SimulateCommand>();
  const auto path_flag = [&](const char* flag, std::filesystem::path& path, const char* help, const char* type) {
    command
        ->add_option_function<std::string>(
            flag, [&path](const std::string& text) { path = text; }, help)
        ->type_name(type);
  };
  path_flag("--model", options->model, "A model directory, a pack or a config.json (default: DeepSeek-R1)", "MODEL");
  path_flag("--trace", options->trace,
            "Routing recorded with `moraine generate --trace` (default: made up\nwith published statistics)", "F");
  add_machine_flags(*command, options);
  add_memory_flags(*command, options->memory);
  add_experts_flag(*command, options->experts, "Format of the experts (default: Q4_K)");
  add_resident_flag(*command, options->resident);
  add_run_flags(*command, options->options);
  command->add_flag("--table", options->table, "A table of 64 to 384 GB of RAM and 1 to 4 drives, in Markdown");
  add_json_flag(*command, options->json, "Print one JSON object: tokens_per_s, hit_rate, misses, …");
  set_help_footer(
      *command,
      "  moraine simulate --ram 128GiB --nvme 11GB/s\n"
      "  moraine simulate --trace trace.json --ram 256GiB --nvme 7GB/s --drives 2\n"
      "  moraine simulate --nvme 7GB/s --table\n\n"
      "The store's own cache, policy and prefetcher run in it; docs/memory_plan.md says what is modelled.\n");
  command->callback(
      [options, &chosen] { chosen = [options](Console& console) { return run_simulation(*options, console); }; });
}

}  // namespace moraine::tools

#include <fmt/format.h>
#include <sys/stat.h>

#include <CLI/Formatter.hpp>
#include <CLI/Validators.hpp>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cpu/cpu_backend.h"
#include "offload/disk_speed.h"
#include "offload/mirrored_files.h"
#include "quant/error.h"
#include "tools/bench_machine.h"
#include "tools/byte_size.h"
#include "tools/commands.h"
#include "tools/engine_setup.h"
#include "tools/exit_codes.h"
#include "tools/machine_record.h"
#include "tools/plan_report.h"
#include "tools/stats_json.h"
#include "tools/user_files.h"

namespace moraine::tools {
namespace {

struct PlanCommand {
  EngineOptions engine;
  std::optional<uint64_t> ram_bytes;
  uint64_t vram_bytes = 0;
  std::vector<std::string> drives;  ///< directories and speeds
  std::optional<double> dram_gb_per_s, vram_gb_per_s, pcie_gb_per_s;
  bool json = false;
};

constexpr double kDiskSeconds = 0.3;  // a plan is there within a second

/// All drives together: what is said of them, or what the model's own files and their mirrors give. Directories of one
/// file system are one drive.
std::optional<double> drives_gb_per_s(const PlanCommand& command, const ModelForm& form, Console& console) {
  if (command.drives.empty()) {
    return offload::measure_disk_gb_per_s(form.files(), {.mirrors = command.engine.mirrors, .max_s = kDiskSeconds});
  }
  double sum = 0.0;
  std::set<dev_t> measured;
  for (const std::string& drive : command.drives) {
    std::optional<double> speed = parse_speed_gb_per_s(drive);
    if (!speed) {
      struct stat status = {};
      if (stat(drive.c_str(), &status) == 0 && !measured.insert(status.st_dev).second) {
        console.line(fmt::format("{} lies on a drive that is counted already", quant::printable(drive)));
        continue;
      }
      speed = measure_directory_gb_per_s(drive);
    }
    if (!speed) return std::nullopt;
    sum += *speed;
  }
  return sum;
}

double speed_of(const std::string& text) {
  const std::optional<double> speed = parse_speed_gb_per_s(text);
  if (speed) return *speed;
  throw quant::Error(quant::ErrorKind::kUsage,
                     {.what = "not a speed", .item = quant::printable(text), .expected = "e.g. 200GB/s"});
}

int plan(const PlanCommand& command, Console& console) {
  for (const std::string& drive : command.drives) parse_speed_gb_per_s(drive);  // nonsense is refused before all else
  const PlannedModel model =
      open_planned_model(model_directory(command.engine.model), command.engine.experts, command.engine.resident);
  const offload::Topology topology = offload::Topology::detect();
  MachineSpec machine = spec_of(topology, offload::available_ram_bytes(topology.memory_limit));
  if (command.ram_bytes) machine.room = {.ram_bytes = *command.ram_bytes};
  machine.room.vram_bytes = command.vram_bytes;
  if (command.vram_gb_per_s) machine.vram_gb_per_s = *command.vram_gb_per_s;
  if (command.pcie_gb_per_s) machine.pcie_gb_per_s = *command.pcie_gb_per_s;
  const offload::MemoryWishes wishes = memory_wishes(command.engine);
  const int64_t chunk_rows = cpu::CpuOptions().max_rows;
  // What cannot fit, and a mirror that is none, is refused before anything is measured.
  const ModelForm form = place_model(model, machine.room, wishes, chunk_rows).form;
  if (!command.engine.mirrors.empty()) offload::find_mirrors(form.files(), command.engine.mirrors);

  console.redraw("measuring the machine");
  const MachineRecord record = known_machine(machine_record_file(), cpu_name(), machine.core_count,
                                             [&] { return measure_compute(thread_count({}), topology); });
  machine.limits = record.limits;
  machine.shares = record.shares;
  if (command.dram_gb_per_s) machine.limits.compute.dram_read_gb_per_s = command.dram_gb_per_s;
  machine.limits.disk_gb_per_s = drives_gb_per_s(command, form, console);
  console.clear_redrawn();
  const ModelPlan made = plan_model(model, machine, wishes, chunk_rows);
  console.out(command.json ? json_text(plan_json(model, machine, made)) : plan_text(model, machine, made));
  return kExitOk;
}

}  // namespace

void add_plan_command(CLI::App& app, Command& chosen) {
  CLI::App* command = app.add_subcommand("plan", "Say where everything would lie, how fast it would be, and why");
  const auto options = std::make_shared<PlanCommand>();
  add_model_argument(*command, options->engine.model, ModelArgument::kOptional);
  const auto size_flag = [&](const char* flag, const char* help, auto set) {
    command
        ->add_option_function<std::string>(
            flag, [set](const std::string& text) { set(parse_byte_size(text)); }, help)
        ->type_name("SIZE");
  };
  size_flag("--ram", "Plan for so much free RAM (default: what is free here)",
            [options](uint64_t bytes) { options->ram_bytes = bytes; });
  size_flag("--vram", "Plan for a GPU with so much memory (default: none)",
            [options](uint64_t bytes) { options->vram_bytes = bytes; });
  CLI::Option* nvme =
      command
          ->add_option("--nvme", options->drives,
                       "A directory on the drive, which is measured there, or a speed,\ne.g. 11GB/s; several drives: "
                       "several times (default: the model's\nown files are measured)")
          ->type_name("DIR|SPEED")
          ->allow_extra_args(false);
  add_stripe_flag(*command, options->engine.mirrors)->excludes(nvme);
  const auto speed_flag = [&](const char* flag, std::optional<double>& speed, const char* help) {
    command
        ->add_option_function<std::string>(
            flag, [&speed](const std::string& text) { speed = speed_of(text); }, help)
        ->type_name("SPEED");
  };
  speed_flag("--dram", options->dram_gb_per_s, "Plan for this DRAM read speed (default: measured)");
  speed_flag("--vram-speed", options->vram_gb_per_s, "With --vram: its read speed (default: 900GB/s)");
  speed_flag("--pcie", options->pcie_gb_per_s, "With --vram: speed between RAM and VRAM (default: 25GB/s)");
  add_memory_flags(*command, options->engine);
  add_threads_flag(*command, options->engine.threads);
  add_experts_flag(*command, options->engine.experts,
                   "Plan for experts in this format, e.g. Q4_K (default: as stored)");
  add_resident_flag(*command, options->engine.resident);
  add_json_flag(*command, options->json,
                "Print one JSON object: model, machine, groups, kv, experts,\nstreamed_layers, decode, prefill, gains");
  set_help_footer(*command,
                  "  moraine plan ~/models/pack\n"
                  "  moraine plan DeepSeek-R1/config.json --experts Q4_K --ram 256GiB --nvme 7GB/s --nvme 7GB/s\n\n"
                  "A directory with nothing but config.json is enough: plan before you download.\n");
  command->callback([options, &chosen] { chosen = [options](Console& console) { return plan(*options, console); }; });
}

}  // namespace moraine::tools

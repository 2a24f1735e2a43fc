#include "tools/speed_forecast.h"

#include <fmt/format.h>

#include "cpu/cpu_backend.h"
#include "offload/disk_speed.h"
#include "offload/memory_limit.h"
#include "tools/bench_machine.h"
#include "tools/engine_setup.h"
#include "tools/machine_record.h"
#include "tools/plan_report.h"
#include "tools/user_files.h"

namespace moraine::tools {
namespace {

constexpr uint64_t kLeastModelBytes = uint64_t{1} << 30;

}  // namespace

void tell_expected_speed(const EngineOptions& options, Console& console) {
  if (options.precise || options.reference) return;
  const PlannedModel model = open_planned_model(model_directory(options.model), options.experts, options.resident);
  const offload::Topology topology = offload::Topology::detect();
  MachineSpec machine = spec_of(topology, offload::available_ram_bytes(topology.memory_limit));
  const int64_t chunk_rows = cpu::CpuOptions().max_rows;
  const PlacedModel placed = place_model(model, machine.room, memory_wishes(options), chunk_rows);
  const offload::MemoryPlan& memory = placed.memory;
  if (memory.needs.resident_bytes() + memory.needs.expert_count * memory.needs.record_bytes < kLeastModelBytes) return;

  const MachineRecord record = known_machine(machine_record_file(), cpu_name(), machine.core_count, [&] {
    console.redraw("measuring the machine");
    return measure_compute(thread_count({}), topology);
  });
  console.clear_redrawn();
  machine.limits = record.limits;
  machine.shares = record.shares;
  if (!memory.holds_all_experts()) {
    machine.limits.disk_gb_per_s = offload::measure_disk_gb_per_s(placed.form.files(), {.mirrors = options.mirrors});
  }
  const std::string line = expected_line(plan_model(model, machine, memory_wishes(options), chunk_rows));
  if (!line.empty()) console.err(fmt::format("{}{}{}\n", console.dim_on(), line, console.dim_off()));
}

}  // namespace moraine::tools

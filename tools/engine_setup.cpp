#include "tools/engine_setup.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>
#include <thread>

#include "cpu/cpu_backend.h"
#include "cpu/isa.h"
#include "offload/memory_limit.h"
#include "offload/memory_plan.h"
#include "offload/memory_pressure.h"
#include "offload/topology.h"
#include "quant/error.h"
#include "quant/safetensors.h"
#include "runtime/model_source.h"
#include "runtime/weight_loader.h"
#include "tools/byte_size.h"
#include "tools/machine_spec.h"
#include "tools/model_sizes.h"
#include "tools/planned_model.h"
#include "tools/progress_bar.h"
#include "tools/user_files.h"

namespace moraine::tools {
namespace {

namespace fs = std::filesystem;

constexpr int kLoadThreads = 8;  // more do not make a drive faster

std::string plan_line(const std::string& name, const PlacedModel& placed, const char* reader, int threads,
                      bool reference) {
  const offload::MemoryPlan& plan = placed.memory;
  const bool whole_context = plan.context_tokens == plan.needs.max_context_tokens;
  return fmt::format("{}: {} resident, {} KV cache at most{}, {} {}: {} of {} in RAM ({}); {} threads {}, {}", name,
                     byte_size_text(plan.needs.resident_bytes()), byte_size_text(plan.kv_bytes),
                     whole_context ? "" : fmt::format(" ({} tokens)", plan.context_tokens),
                     placed.form.streams_ffns() ? "FFNs of layers" : "experts", placed.form.source.type_name,
                     plan.slot_count, plan.needs.expert_count, byte_size_text(plan.experts_budget_bytes), threads,
                     reference ? "scalar reference" : cpu::isa_name(), reader);
}

/// The person's own predictor of this model, if `moraine train-predictor` has left one.
std::shared_ptr<const runtime::LinearPredictor> find_predictor(const runtime::Model& model, Console& console) {
  std::error_code ignored;
  const fs::path file = predictor_file(runtime::router_fingerprint(model));
  if (file.empty() || !fs::exists(file, ignored)) return nullptr;
  try {
    return std::make_shared<runtime::LinearPredictor>(runtime::LinearPredictor::load(file, model));
  } catch (const quant::Error& error) {
    console.line(std::string("warning: going without the trained predictor: ") + error.what());
    return nullptr;
  }
}

}  // namespace

offload::MemoryWishes memory_wishes(const EngineOptions& options) {
  return {.experts_budget_bytes = options.ram_budget_bytes, .context_tokens = options.context_tokens};
}

int thread_count(const EngineOptions& options) {
  if (options.threads > 0) return options.threads;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

fs::path embedded_model_directory(const fs::path& program) {
  const fs::path folder = program.parent_path();
  // build/<preset>/bin/moraine lies three folders below the source tree.
  for (const fs::path& candidate : {folder / ".." / "share" / "moraine" / "models" / "tiny-r1",
                                    folder / ".." / ".." / ".." / "tools" / "models" / "tiny-r1"}) {
    std::error_code ignored;
    if (fs::exists(candidate / "config.json", ignored)) return candidate.lexically_normal();
  }
  return {};
}

fs::path model_directory(const fs::path& model) {
  if (!model.empty()) return model;
  std::error_code ignored;
  const fs::path embedded = embedded_model_directory(fs::read_symlink("/proc/self/exe", ignored));
  if (!embedded.empty()) return embedded;
  throw quant::Error(quant::ErrorKind::kBadFile,
                     {.what = "the embedded model tiny-r1 was not found beside the program",
                      .action = "name a model directory, or install Moraine with `cmake --install`"});
}

std::string model_name(const fs::path& directory) {
  std::error_code ignored;
  const fs::path whole = fs::weakly_canonical(directory, ignored);
  const std::string name = (whole.empty() ? directory : whole).filename().string();
  return name.empty() ? directory.string() : quant::printable(name);
}

std::unique_ptr<runtime::Engine> open_engine(const EngineOptions& options, Console& console,
                                             const PartsAdapter& adapt) {
  const fs::path directory = model_directory(options.model);
  const auto source = runtime::ModelSource::open(directory);
  const runtime::ModelConfig config = source->config();
  const quant::Checkpoint checkpoint = source->checkpoint();
  for (const std::string& warning : checkpoint.warnings()) console.line("warning: " + warning);
  // The quick parts first: what is wrong with them should not be told after minutes of loading.
  runtime::EngineParts parts{.text = runtime::ModelText::from_source(*source, config),
                             .model = nullptr,
                             .experts = {},
                             .store = nullptr,
                             .dense = nullptr,
                             .expert_backend = nullptr};
  cpu::CpuOptions cpu_options;
  cpu_options.threads = thread_count(options);
  const offload::Topology topology = offload::Topology::detect();
  cpu_options.cpus = topology.worker_cpus(cpu_options.threads);
  cpu_options.reference = options.reference;
  cpu_options.precise = options.precise;
  const offload::MemoryRoom room = spec_of(topology, offload::available_ram_bytes(topology.memory_limit)).room;
  const PlacedModel placed =
      place_model(planned_model(model_name(directory), checkpoint, config, options.experts, options.resident), room,
                  memory_wishes(options), cpu_options.max_rows, options.precise);
  cpu_options.max_rows = static_cast<int32_t>(placed.chunk_rows);
  const offload::MemoryPlan& plan = placed.memory;
  const bool streams_ffns = placed.form.streams_ffns();
  parts.experts = placed.form.source;
  parts.context_tokens = plan.context_tokens;

  offload::StoreOptions store_options;
  store_options.budget_bytes = plan.experts_budget_bytes;
  store_options.reader = options.reader;
  store_options.mirrors = options.mirrors;
  store_options.prefetch = options.prefetch;
  store_options.pressure = std::make_shared<offload::SystemPressure>();
  if (streams_ffns) store_options.staging_bytes = ffn_staging_bytes(plan.needs.record_bytes);
  if (options.warm_start && !streams_ffns) store_options.hot_set_file = hot_set_file(directory);
  store_options.inform = [&console](const std::string& line) { console.line(line); };
  parts.store = std::make_unique<offload::ExpertStore>(parts.experts.records, store_options,
                                                       static_cast<int>(config.num_experts_per_tok));
  console.err(fmt::format(
      "{}{}{}\n", console.dim_on(),
      plan_line(model_name(directory), placed, parts.store->reader_name(), cpu_options.threads, options.reference),
      console.dim_off()));
  {
    ProgressBar bar(console, "loading", ProgressUnit::kBytes);
    const runtime::LoadOptions load_options = {
        .resident = options.resident,
        .stream_ffn = streams_ffns,
        .progress = [&](uint64_t done_bytes, uint64_t total_bytes) { bar.update(done_bytes, total_bytes); },
        .threads = std::min(cpu_options.threads, kLoadThreads)};
    parts.model = std::make_shared<runtime::Model>(runtime::load_model(checkpoint, config, load_options));
  }
  if (options.prefetch && config.has_experts()) parts.trained_predictor = find_predictor(*parts.model, console);
  const auto backend = std::make_shared<cpu::CpuBackend>(parts.model, cpu_options);
  parts.dense = backend;
  parts.expert_backend = backend;
  if (adapt) adapt(parts);
  return std::make_unique<runtime::Engine>(std::move(parts));
}

}  // namespace moraine::tools

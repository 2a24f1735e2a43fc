#include "tools/benchmark.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <set>
#include <utility>

#include "cpu/isa.h"
#include "offload/disk_speed.h"
#include "offload/host_arena.h"
#include "offload/memory_limit.h"
#include "offload/topology.h"
#include "quant/error.h"
#include "tools/bench_machine.h"
#include "tools/bench_report.h"
#include "tools/engine_setup.h"
#include "tools/exit_codes.h"
#include "tools/feed_tokens.h"
#include "tools/machine_record.h"
#include "tools/stats_json.h"
#include "tools/user_files.h"

namespace moraine::tools {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// How many different experts of each layer a prompt's tokens chose.
class TouchedExperts final : public runtime::StepObserver {
 public:
  explicit TouchedExperts(const runtime::ModelConfig& config)
      : touched_(static_cast<size_t>(config.num_hidden_layers)) {}
  void routed(int layer, std::span<const runtime::RoutedExpert> chosen) override {
    for (const runtime::RoutedExpert& expert : chosen) touched_[static_cast<size_t>(layer)].insert(expert.expert);
  }
  std::vector<int64_t> counts() const {
    std::vector<int64_t> counts;
    for (const std::set<int32_t>& experts : touched_) counts.push_back(static_cast<int64_t>(experts.size()));
    return counts;
  }

 private:
  std::vector<std::set<int32_t>> touched_;  // [num_hidden_layers]
};

/// Adds up the repetitions of one test.
class RowMeter {
 public:
  RowMeter(runtime::Engine& engine, LayerTimes& times, const BenchRow& row, const ComputeMeter& limits)
      : engine_(engine), times_(times), row_(row), limits_(limits) {
    if (limits_) beside_ = limits_();
  }

  /// `run` takes row.tokens tokens through the model; `costs` says afterwards what they cost, all together.
  void repetition(const std::function<void()>& run, const std::function<StepCosts()>& costs) {
    const LayerTimes times_before = times_;
    const offload::StoreCounters store_before = engine_.store().counters();
    const auto start = Clock::now();
    run();
    const double elapsed_s = seconds_since(start);
    const offload::StoreCounters store = engine_.store().counters() - store_before;
    speeds_.push_back(static_cast<double>(row_.tokens) / elapsed_s);
    row_.total_s += elapsed_s;
    row_.wait_s += static_cast<double>(store.stall_us) / 1e6;
    row_.bytes_read += static_cast<double>(store.bytes_read);
    row_.bytes_missed += static_cast<double>(store.bytes_missed);
    row_.bytes_wasted += static_cast<double>(store.bytes_wasted);
    row_.disk_busy_s += static_cast<double>(store.busy_us) / 1e6;
    hits_ += store.hits;
    wanted_ += store.hits + store.misses + store.late_prefetches;
    const StepCosts cost = costs();
    for (const LayerKind kind : kLayerKinds) {
      row_.seconds[kind] += times_.seconds[kind] - times_before.seconds[kind];
      row_.costs[kind] += cost[kind];
    }
    if (limits_) beside_ += limits_();
  }

  BenchRow finish() {
    const double tokens = static_cast<double>(row_.tokens) * static_cast<double>(speeds_.size());
    for (double* sum :
         {&row_.total_s, &row_.wait_s, &row_.bytes_read, &row_.bytes_missed, &row_.bytes_wasted, &row_.disk_busy_s}) {
      *sum /= tokens;
    }
    for (const LayerKind kind : kLayerKinds) {
      row_.seconds[kind] /= tokens;
      Cost& cost = row_.costs[kind];
      for (double* sum : {&cost.weight_bytes, &cost.flop, &cost.context_flop}) *sum /= tokens;
    }
    if (wanted_ > 0) row_.expert_hit_rate = static_cast<double>(hits_) / static_cast<double>(wanted_);
    row_.tokens_per_s = Spread::of(speeds_);
    row_.beside = beside_.median();
    return row_;
  }

 private:
  runtime::Engine& engine_;
  LayerTimes& times_;
  BenchRow row_;
  const ComputeMeter& limits_;
  cpu::LimitSamples beside_;
  std::vector<double> speeds_;
  uint64_t hits_ = 0, wanted_ = 0;
};

/// One benchmark's state: the engine, and where its random tokens come from.
class BenchRun {
 public:
  BenchRun(runtime::Engine& engine, LayerTimes& times, int threads, const BenchPlan& plan, const ComputeMeter& limits)
      : engine_(engine),
        times_(times),
        threads_(threads),
        plan_(plan),
        limits_(limits),
        costs_(engine.model(), engine.experts().layouts),
        random_(plan.seed),
        logits_(static_cast<size_t>(engine.config().vocab_size)) {}

  /// Fills the expert store if it holds all experts, and takes every buffer to its size.
  void warm_up() {
    const std::span<const offload::ExpertId> all = engine_.store().source().experts();
    const auto slots = static_cast<size_t>(engine_.store().slot_count());
    if (slots >= all.size()) {
      offload::LeaseStream stream = engine_.store().acquire(all);
      while (stream.next()) {
      }
    }
    const auto chunk = static_cast<int64_t>(engine_.transformer().chunk_rows());
    int64_t longest = plan_.decode_tokens > 0 ? 1 : 0;
    for (const int64_t tokens : plan_.prompt_tokens) longest = std::max(longest, tokens);
    if (longest > 0) prefill(std::min(longest, chunk), nullptr);
  }

  BenchRow prefill_row(int64_t tokens) {
    RowMeter meter(engine_, times_, {.test = BenchTest::kPrefill, .tokens = tokens, .context = 0, .threads = threads_},
                   limits_);
    for (int repetition = 0; repetition < plan_.repetitions; ++repetition) {
      TouchedExperts touched(engine_.config());
      meter.repetition([&] { prefill(tokens, &touched); }, [&] { return costs_.prefill(tokens, touched.counts()); });
    }
    return meter.finish();
  }

  /// Continues `session`, which holds at most `depth` tokens.
  BenchRow decode_row(runtime::Session& session, int64_t depth) {
    runtime::KvCache& cache = session.cache();
    const int64_t tokens = plan_.decode_tokens;
    if (depth > cache.token_count()) {
      feed_tokens(engine_, cache, random_ids(depth - cache.token_count()), LogitRows::kNone, {});
    }
    decode(cache, std::min<int64_t>(tokens, kWarmUpTokens));
    RowMeter meter(engine_, times_,
                   {.test = BenchTest::kDecode, .tokens = tokens, .context = depth, .threads = threads_}, limits_);
    for (int repetition = 0; repetition < plan_.repetitions; ++repetition) {
      cache.truncate(depth);
      meter.repetition([&] { decode(cache, tokens); }, [&] { return decode_costs(depth); });
    }
    cache.truncate(depth);
    return meter.finish();
  }

 private:
  static constexpr int64_t kWarmUpTokens = 8;

  std::vector<int32_t> random_ids(int64_t count) {
    std::uniform_int_distribution<int32_t> any(0, static_cast<int32_t>(engine_.config().vocab_size) - 1);
    std::vector<int32_t> ids(static_cast<size_t>(count));
    for (int32_t& id : ids) id = any(random_);
    return ids;
  }

  void prefill(int64_t tokens, runtime::StepObserver* observer) {
    runtime::Session session = engine_.new_session();
    feed_tokens(engine_, session.cache(), random_ids(tokens), LogitRows::kLast, logits_, observer);
  }

  void decode(runtime::KvCache& cache, int64_t tokens) {
    for (const int32_t id : random_ids(tokens)) {
      feed_tokens(engine_, cache, {&id, 1}, LogitRows::kLast, logits_);
    }
  }

  StepCosts decode_costs(int64_t depth) const {
    StepCosts sum;
    for (int64_t i = 0; i < plan_.decode_tokens; ++i) {
      const StepCosts token = costs_.decode(static_cast<double>(depth + i));
      for (const LayerKind kind : kLayerKinds) sum[kind] += token[kind];
    }
    return sum;
  }

  runtime::Engine& engine_;
  LayerTimes& times_;
  int threads_;
  const BenchPlan& plan_;
  const ComputeMeter& limits_;
  ModelCosts costs_;
  std::mt19937_64 random_;
  std::vector<float> logits_;  // [vocab_size]
};

/// Measures DRAM and products whenever it is called, and keeps the fastest.
class LimitMeter {
 public:
  LimitMeter(const BenchOptions& options, int threads, const offload::Topology& machine)
      : sizes_(options.limit_sizes), given_bytes_(sizes_.read_bytes), threads_(threads), l3_bytes_(machine.l3_bytes) {}

  /// While no model is open.
  void measure_alone() {
    sizes_.read_bytes = fitting_bytes();
    measure(sizes_.max_s);
  }
  /// While a model is open: nothing if the buffer of measure_alone() would take more than half of the RAM that is free.
  cpu::LimitSamples measure_beside_row() {
    if (offload::available_ram_bytes(offload::read_memory_limit()) / 2 < sizes_.read_bytes) return {};
    return measure(sizes_.max_s / 2);
  }
  cpu::MachineLimits fastest() const { return all_.fastest(); }

 private:
  uint64_t fitting_bytes() const {
    if (given_bytes_ != 0) return given_bytes_;
    return dram_buffer_bytes(l3_bytes_, offload::available_ram_bytes(offload::read_memory_limit()));
  }
  cpu::LimitSamples measure(double max_s) {
    cpu::LimitSizes sizes = sizes_;
    sizes.max_s = max_s;
    cpu::ThreadPool pool(threads_);
    cpu::LimitSamples samples = cpu::measure_machine_limits(pool, sizes);
    all_ += samples;
    return samples;
  }

  cpu::LimitSizes sizes_;
  uint64_t given_bytes_;
  int threads_;
  uint64_t l3_bytes_;
  cpu::LimitSamples all_;
};

/// Measures the drive whenever it is called, and keeps the fastest.
class DriveMeter {
 public:
  /// `will_stream`: what is measured first counts for a row.
  DriveMeter(const BenchOptions& options, const offload::ExpertRecordSource& records, bool will_stream)
      : options_(options),
        files_(records.files()),
        record_bytes_(offload::HostArena::slot_bytes_for(records.max_record_bytes())),
        is_first_(will_stream) {}

  std::optional<double> measure() {
    const double lead_s = std::exchange(is_first_, false) ? options_.disk.first_lead_s : options_.disk.lead_s;
    // Other places every time: those of the last time may lie in a cache of the drive or of a virtual machine's host.
    const auto gb_per_s = offload::measure_disk_gb_per_s(files_, {.reader = options_.engine.reader,
                                                                  .mirrors = options_.engine.mirrors,
                                                                  .piece_bytes = record_bytes_,
                                                                  .pieces_in_flight = kRecordsInFlight,
                                                                  .lead_s = lead_s,
                                                                  .max_s = options_.disk.measure_s,
                                                                  .seed = std::random_device{}()});
    if (gb_per_s) fastest_ = std::max(*gb_per_s, fastest_.value_or(0.0));
    return gb_per_s;
  }
  std::optional<double> fastest() const { return fastest_; }

 private:
  static constexpr int kRecordsInFlight = 2;

  const BenchOptions& options_;
  const std::vector<std::filesystem::path> files_;
  const uint64_t record_bytes_;
  bool is_first_;
  std::optional<double> fastest_;
};

/// Measures the drive between rows; the mean of the speeds before and after a row is the row's.
class DriveBesideRows {
 public:
  explicit DriveBesideRows(const DiskMeter& meter) : meter_(meter), before_(meter ? meter() : std::nullopt) {}

  void finish(BenchRow& row) {
    if (!meter_ || row.bytes_read == 0.0) return;
    const std::optional<double> after = meter_();
    if (before_ && after) row.disk_gb_per_s = (*before_ + *after) / 2.0;
    before_ = after;
  }

 private:
  const DiskMeter& meter_;
  std::optional<double> before_;
};

/// For the plans of this machine. What was measured with fewer threads or other arithmetic than plans are made for says
/// nothing about it.
void note_machine(const BenchOptions& options, const BenchReport& report) {
  const EngineOptions& engine = options.engine;
  if (engine.threads != 0 || engine.reference || engine.precise || options.limit_sizes.read_bytes != 0) return;
  const std::filesystem::path file = machine_record_file();
  MachineRecord record = read_machine_record(file, report.cpu, report.cores).value_or(MachineRecord());
  record.limits = report.limits;
  record.shares = with_measured(record.shares, report);
  write_machine_record(file, report.cpu, report.cores, record);
}

}  // namespace

void BenchPlan::validate(const runtime::ModelConfig& config) const {
  const auto check = [&](const char* what, int64_t tokens) {
    if (tokens <= config.max_position_embeddings) return;
    throw quant::Error(quant::ErrorKind::kUsage,
                       {.what = fmt::format("{} of {} tokens", what, tokens),
                        .expected = fmt::format("at most {}, this model's context", config.max_position_embeddings)});
  };
  for (const int64_t tokens : prompt_tokens) check("a prompt", tokens);
  for (const int64_t depth : depths) {
    if (decode_tokens > 0) check("decoding up to a depth", depth + decode_tokens);
  }
}

int64_t BenchPlan::context_tokens() const {
  int64_t longest = 1;
  for (const int64_t tokens : prompt_tokens) longest = std::max(longest, tokens);
  for (const int64_t depth : depths) longest = std::max(longest, depth + decode_tokens);
  return longest;
}

std::vector<BenchRow> run_benchmark(runtime::Engine& engine, LayerTimes& times, int threads, const BenchPlan& plan,
                                    const BenchProgress& progress, const BenchMeters& meters) {
  const auto tell = [&](const std::string& what) {
    if (progress) progress(what);
  };
  plan.validate(engine.config());
  BenchRun run(engine, times, threads, plan, meters.compute);
  tell("warming up");
  run.warm_up();
  if (meters.disk) tell("measuring the drive");
  DriveBesideRows drive(meters.disk);
  std::vector<BenchRow> rows;
  for (const int64_t tokens : plan.prompt_tokens) {
    tell(fmt::format("prefill of {} tokens", tokens));
    rows.push_back(run.prefill_row(tokens));
    drive.finish(rows.back());
  }
  if (plan.decode_tokens == 0) return rows;
  runtime::Session session = engine.new_session();
  for (const int64_t depth : plan.depths) {
    tell(fmt::format("decode of {} tokens at context {}", plan.decode_tokens, depth));
    if (depth < session.cache().token_count()) session.cache().truncate(depth);
    rows.push_back(run.decode_row(session, depth));
    drive.finish(rows.back());
  }
  return rows;
}

int bench(const BenchOptions& options, Console& console) {
  const std::filesystem::path directory = model_directory(options.engine.model);
  options.plan.validate(runtime::ModelSource::open(directory)->config());
  const auto tell = [&](const std::string& what) { console.redraw(what); };
  const offload::Topology machine = offload::Topology::detect();
  BenchReport report{
      .cpu = cpu_name(), .cores = machine.core_count, .isa = cpu::isa_name(), .model = model_name(directory)};
  const int threads = thread_count(options.engine);

  tell("measuring the machine");
  LimitMeter limits(options, threads, machine);
  limits.measure_alone();
  console.clear_redrawn();
  LayerTimes times;
  EngineOptions engine_options = options.engine;
  engine_options.context_tokens = options.plan.context_tokens();
  std::unique_ptr<runtime::Engine> engine = open_engine(engine_options, console, [&](runtime::EngineParts& parts) {
    parts.dense = timed(std::move(parts.dense), times);
    parts.expert_backend = timed(std::move(parts.expert_backend), times);
  });
  const offload::ExpertRecordSource& records = *engine->experts().records;
  const bool will_stream = static_cast<size_t>(engine->store().slot_count()) < records.experts().size();
  DriveMeter drive(options, records, will_stream);
  BenchMeters meters{.disk = [&] { return drive.measure(); }};
  // Between the repetitions of a row that reads experts the drive must not rest; its bound is the drive's anyway.
  if (!will_stream) meters.compute = [&] { return limits.measure_beside_row(); };
  report.token = total_of(ModelCosts(engine->model(), engine->experts().layouts).decode(0.0));
  report.rows = run_benchmark(*engine, times, threads, options.plan, tell, meters);

  tell("measuring the machine again");
  engine.reset();  // its memory is wanted for the buffer
  limits.measure_alone();
  console.clear_redrawn();
  report.limits = {.compute = limits.fastest(), .disk_gb_per_s = drive.fastest()};
  note_machine(options, report);
  console.out(options.json ? json_text(bench_json(report)) : bench_table(report));
  return kExitOk;
}

}  // namespace moraine::tools

#include "tools/model_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "quant/error.h"
#include "tools/byte_size.h"
#include "tools/model_costs.h"

namespace moraine::tools {
namespace {

constexpr double kLeastGain = 1.05;  // what gains less is not worth telling

/// The group that holds a kind's weights, "" for those that are no resident weights.
const char* group_of(LayerKind kind) {
  switch (kind) {
    case LayerKind::kEmbed:
      return "embedding";
    case LayerKind::kAttention:
      return "attention";
    case LayerKind::kDenseFfn:
      return "dense FFN";
    case LayerKind::kRoute:
      return "router";
    case LayerKind::kShared:
      return "shared experts";
    case LayerKind::kHead:
      return "head";
    case LayerKind::kRouted:
      return "";
  }
  MORAINE_CHECK(false);
}

double moe_layers(const runtime::ModelConfig& config) {
  if (!config.has_experts()) return 0.0;
  return static_cast<double>(std::max<int64_t>(0, config.num_hidden_layers - config.first_k_dense_replace));
}

/// Takes what lies in VRAM out of `costs`; returns its bytes.
double take_vram_bytes(StepCosts& costs, const offload::MemoryPlan& memory) {
  double bytes = 0.0;
  for (const LayerKind kind : kLayerKinds) {
    for (size_t i = 0; i < memory.tiers.size(); ++i) {
      if (memory.tiers[i] != offload::MemoryTier::kVram || memory.needs.resident[i].name != group_of(kind)) continue;
      bytes += costs[kind].weight_bytes;
      costs[kind] = {};  // its products are the GPU's, too
    }
  }
  return bytes;
}

/// Work against one limit.
struct LimitedWork {
  const char* limit = "";
  double bound_s = 0.0;      ///< at the limit
  double predicted_s = 0.0;  ///< at the share of it that is reached; 0: there is none, or the limit is not known

  static LimitedWork at(const char* limit, double bound_s, double share) { return {limit, bound_s, bound_s / share}; }
  static LimitedWork at(const std::optional<Bound>& bound, double extra_s, double share) {
    return bound ? at(bound->limit, 1.0 / bound->tokens_per_s + extra_s, share) : LimitedWork();
  }
  static const LimitedWork& slower(const LimitedWork& a, const LimitedWork& b) {
    return b.predicted_s > a.predicted_s ? b : a;
  }
};

/// Reading and computing while decoding overlap in part: nothing of a layer can be read for sure before its router has
/// spoken. 1 would be one after the other, ∞ whichever takes longer; fitted to the simulator with prediction
/// (docs/memory_plan.md).
constexpr double kOverlapExponent = 1.5;

/// Numbers that cross PCIe per token and MoE layer, where the router is on one side and the experts on the other: the
/// experts' input and their sum, f32.
double pcie_bytes(const runtime::ModelConfig& config, const offload::MemoryPlan& memory) {
  if (memory.bytes_in(offload::MemoryTier::kVram) == 0) return 0.0;
  return moe_layers(config) * 2.0 * static_cast<double>(config.hidden_size) * sizeof(float);
}

std::optional<SpeedEstimate> estimate(BenchRow row, const ModelPlan& plan, const MachineSpec& machine) {
  const ModelForm& form = plan.placed.form;
  SpeedEstimate speed{.disk_bytes = row.bytes_read,
                      .memory_bytes = total_of(row.costs).weight_bytes,
                      .pcie_bytes = pcie_bytes(form.shape->config, plan.memory())};
  const std::optional<double> disk_gb_per_s = machine.limits.disk_gb_per_s;
  if (row.bytes_read > 0.0 && !disk_gb_per_s) return std::nullopt;  // the one that would bind
  const double gpu_s = take_vram_bytes(row.costs, plan.memory()) / (machine.vram_gb_per_s * 1e9) +
                       speed.pcie_bytes / (machine.pcie_gb_per_s * 1e9);
  const cpu::MachineLimits& compute = machine.limits.compute;
  const ReachedShares& shares = machine.shares;
  LimitedWork disk, work;
  if (disk_gb_per_s) disk = LimitedWork::at("disk", row.bytes_read / (*disk_gb_per_s * 1e9), shares.disk);
  row.bytes_read = 0.0;
  if (row.test == BenchTest::kDecode) {
    work = LimitedWork::at(bound_of(row, {.compute = compute}), gpu_s, shares.decode_dram);
  } else {
    cpu::MachineLimits memory_alone = compute, products_alone = compute;
    memory_alone.int8_gflop_per_s.reset();
    products_alone.dram_read_gb_per_s.reset();
    work = LimitedWork::slower(LimitedWork::at(bound_of(row, {.compute = memory_alone}), gpu_s, shares.prefill_dram),
                               LimitedWork::at(bound_of(row, {.compute = products_alone}), gpu_s, shares.prefill_int8));
  }
  const LimitedWork& slowest = LimitedWork::slower(work, disk);
  if (slowest.predicted_s <= 0.0) return std::nullopt;
  // A chunk of a prompt streams through experts that are all known, and a dense model always does: there the drive and
  // the products go side by side.
  const double predicted_s =
      row.test == BenchTest::kPrefill || form.streams_ffns()
          ? slowest.predicted_s
          : std::pow(std::pow(work.predicted_s, kOverlapExponent) + std::pow(disk.predicted_s, kOverlapExponent),
                     1.0 / kOverlapExponent);
  speed.bound = {.limit = slowest.limit, .tokens_per_s = 1.0 / slowest.bound_s};
  speed.efficiency = slowest.bound_s / predicted_s;
  return speed;
}

/// Different experts of a layer that `tokens` tokens choose, if all are alike.
double touched_experts(const runtime::ModelConfig& config, double tokens) {
  if (!config.has_experts()) return 0.0;
  const auto experts = static_cast<double>(config.n_routed_experts);
  const double chosen_share = static_cast<double>(config.num_experts_per_tok) / experts;
  return experts * (1.0 - std::pow(1.0 - chosen_share, tokens));
}

/// Records that a decoded token wants: top-k experts of every MoE layer, or every streamed FFN.
double records_per_token(const ModelForm& form) {
  const runtime::ModelConfig& config = form.shape->config;
  if (form.streams_ffns()) return static_cast<double>(config.num_hidden_layers);
  return moe_layers(config) * static_cast<double>(config.num_experts_per_tok);
}

std::optional<SpeedEstimate> decode_speed(const ModelPlan& plan, const MachineSpec& machine, const ModelCosts& costs) {
  const ModelForm& form = plan.placed.form;
  const int64_t context = std::min(kPlannedDecodeContext, plan.memory().context_tokens - 1);
  BenchRow row{.test = BenchTest::kDecode, .tokens = 1, .context = context};
  row.costs = costs.decode(static_cast<double>(context));
  row.bytes_read = records_per_token(form) * (1.0 - plan.hit_rate) * form.read_bytes_per_record;
  return estimate(std::move(row), plan, machine);
}

std::optional<SpeedEstimate> prefill_speed(const ModelPlan& plan, const MachineSpec& machine, const ModelCosts& costs) {
  const ModelForm& form = plan.placed.form;
  const offload::MemoryPlan& memory = plan.memory();
  const runtime::ModelConfig& config = form.shape->config;
  const int64_t tokens = std::min(kPlannedPromptTokens, memory.context_tokens);
  const auto touched = static_cast<int64_t>(std::lround(touched_experts(config, static_cast<double>(tokens))));
  std::vector<int64_t> touched_of_layer(form.shape->layers.size(), 0);
  for (size_t l = 0; l < touched_of_layer.size(); ++l) {
    if (config.is_moe_layer(static_cast<int64_t>(l))) touched_of_layer[l] = touched;
  }
  const auto count = static_cast<double>(tokens);
  BenchRow row{.test = BenchTest::kPrefill, .tokens = tokens, .costs = costs.prefill(tokens, touched_of_layer)};
  for (const LayerKind kind : kLayerKinds) {
    for (double* sum : {&row.costs[kind].weight_bytes, &row.costs[kind].flop, &row.costs[kind].context_flop}) {
      *sum /= count;
    }
  }
  // Every chunk reads what it wants and RAM does not hold.
  const auto chunk = static_cast<double>(std::min(tokens, plan.placed.chunk_rows));
  double missing_records = 0.0;
  if (form.streams_ffns()) {
    missing_records = records_per_token(form) * (1.0 - plan.hit_rate);
  } else if (!memory.holds_all_experts()) {
    const double held = static_cast<double>(memory.slot_count) / static_cast<double>(memory.needs.expert_count);
    missing_records = moe_layers(config) * touched_experts(config, chunk) * (1.0 - held);
  }
  row.bytes_read = std::ceil(count / chunk) * missing_records * form.read_bytes_per_record / count;
  return estimate(std::move(row), plan, machine);
}

/// Expected share of the records wanted while decoding that are in RAM.
double hit_rate_of(const PlacedModel& placed) {
  const uint64_t records = placed.memory.needs.expert_count, slots = placed.memory.slot_count;
  if (placed.memory.holds_all_experts()) return 1.0;
  if (placed.form.streams_ffns()) return static_cast<double>(placed.kept_layers()) / static_cast<double>(records);
  // With less than a token's experts in RAM, each is gone before it is wanted again.
  if (static_cast<double>(slots) < records_per_token(placed.form)) return 0.0;
  return expected_hit_rate(static_cast<double>(slots) / static_cast<double>(records));
}

ModelPlan plan_without_gains(const PlannedModel& model, const MachineSpec& machine, const offload::MemoryWishes& wishes,
                             int64_t chunk_rows) {
  ModelPlan plan{.placed = place_model(model, machine.room, wishes, chunk_rows)};
  plan.hit_rate = hit_rate_of(plan.placed);
  const ModelForm& form = plan.placed.form;
  const ModelCosts costs(*form.shape, form.source.layouts);
  plan.decode = decode_speed(plan, machine, costs);
  plan.prefill = prefill_speed(plan, machine, costs);
  return plan;
}

double factor(const std::optional<SpeedEstimate>& after, const std::optional<SpeedEstimate>& before) {
  return after && before ? after->tokens_per_s() / before->tokens_per_s() : 1.0;
}

/// Tries changes one at a time.
class GainSearch {
 public:
  GainSearch(const ModelPlan& now, int64_t chunk_rows) : now_(now), chunk_rows_(chunk_rows) {}

  void tried(const std::string& change, const PlannedModel& model, const MachineSpec& machine,
             const offload::MemoryWishes& wishes) {
    try {
      const ModelPlan then = plan_without_gains(model, machine, wishes, chunk_rows_);
      const PlannedGain gain{.change = change,
                             .decode_factor = factor(then.decode, now_.decode),
                             .prefill_factor = factor(then.prefill, now_.prefill)};
      if (std::max(gain.decode_factor, gain.prefill_factor) >= kLeastGain) gains_.push_back(gain);
    } catch (const quant::Error&) {
      // A change that leads to nothing that runs is no advice.
    }
  }

  std::vector<PlannedGain> best_first() {
    const auto worth = [](const PlannedGain& gain) { return gain.decode_factor * gain.prefill_factor; };
    std::stable_sort(gains_.begin(), gains_.end(),
                     [&](const PlannedGain& a, const PlannedGain& b) { return worth(a) > worth(b); });
    return gains_;
  }

 private:
  const ModelPlan& now_;
  int64_t chunk_rows_;
  std::vector<PlannedGain> gains_;
};

/// Experts in Q4_K, if they are in something much larger.
void try_four_bits(GainSearch& search, const PlannedModel& model, const MachineSpec& machine,
                   const offload::MemoryWishes& wishes, uint64_t record_bytes) {
  const runtime::ModelConfig& config = model.config();
  const auto q4 = quant::ExpertLayout::make(quant::DType::kQ4_K, config.hidden_size, config.moe_intermediate_size);
  if (record_bytes * 2 <= q4.record_bytes * 3) return;
  PlannedModel smaller = model;
  smaller.whole.source.layouts.assign(model.whole.source.layouts.size(), q4);
  smaller.whole.read_bytes_per_record = static_cast<double>(q4.record_bytes);
  search.tried("experts in Q4_K", smaller, machine, wishes);
}

}  // namespace

double expected_hit_rate(double fraction) {
  struct Point {
    double fraction, hit_rate;
  };
  // `moraine simulate --ram 500GB --ram-budget … --recall 0 --warm-up 1200 --tokens 200`
  constexpr std::array<Point, 13> kCurve = {{{0.0, 0.0},
                                             {0.054, 0.220},
                                             {0.109, 0.320},
                                             {0.163, 0.397},
                                             {0.217, 0.462},
                                             {0.272, 0.517},
                                             {0.381, 0.615},
                                             {0.489, 0.701},
                                             {0.598, 0.779},
                                             {0.707, 0.846},
                                             {0.816, 0.910},
                                             {0.924, 0.966},
                                             {1.0, 1.0}}};
  const double f = std::clamp(fraction, 0.0, 1.0);
  for (size_t i = 1; i < kCurve.size(); ++i) {
    const Point &a = kCurve[i - 1], &b = kCurve[i];
    if (f <= b.fraction) return a.hit_rate + (b.hit_rate - a.hit_rate) * (f - a.fraction) / (b.fraction - a.fraction);
  }
  return 1.0;
}

ModelPlan plan_model(const PlannedModel& model, const MachineSpec& machine, const offload::MemoryWishes& wishes,
                     int64_t chunk_rows) {
  ModelPlan plan = plan_without_gains(model, machine, wishes, chunk_rows);
  GainSearch search(plan, chunk_rows);
  if (!plan.memory().holds_all_experts()) {
    constexpr uint64_t kGib = 1u << 30;
    // Without the budget that was asked for: more RAM is of use only if it may be used.
    const offload::MemoryWishes free{.context_tokens = wishes.context_tokens};
    for (const uint64_t more_gib : {32, 64, 128, 256, 512}) {
      MachineSpec larger = machine;
      larger.room.ram_bytes += more_gib * kGib;
      search.tried(fmt::format("+{} GiB RAM", more_gib), model, larger, free);
    }
    if (wishes.experts_budget_bytes) search.tried("no --ram-budget", model, machine, free);
    if (machine.limits.disk_gb_per_s) {
      MachineSpec drives = machine;
      *drives.limits.disk_gb_per_s *= 2.0;
      search.tried(fmt::format("twice the drives ({:.1f} GB/s)", *drives.limits.disk_gb_per_s), model, drives, wishes);
    }
    constexpr int64_t kShortContext = 8192;
    if (plan.memory().context_tokens > kShortContext) {
      offload::MemoryWishes shorter = wishes;
      shorter.context_tokens = kShortContext;
      search.tried(fmt::format("--context {}", kShortContext), model, machine, shorter);
    }
  }
  if (model.config().has_experts()) try_four_bits(search, model, machine, wishes, plan.memory().needs.record_bytes);
  if (machine.limits.compute.dram_read_gb_per_s) {
    MachineSpec wider = machine;
    *wider.limits.compute.dram_read_gb_per_s *= 2.0;
    search.tried("twice the memory channels", model, wider, wishes);
  }
  plan.gains = search.best_first();
  return plan;
}

}  // namespace moraine::tools

#include "tools/trace_recorder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace moraine::tools {
namespace {

constexpr int kComputeTrack = 1, kStoreTrack = 2;
constexpr double kLeastWaitS = 20e-6;  // shorter gaps are the loop's own work

const char* event_name(offload::StoreEvent event) {
  switch (event) {
    case offload::StoreEvent::kHit:
      return "hit";
    case offload::StoreEvent::kMiss:
      return "miss";
    case offload::StoreEvent::kLatePrefetch:
      return "late";
    case offload::StoreEvent::kPrefetch:
      return "prefetch";
    case offload::StoreEvent::kReadEnded:
      return "read";
  }
  return "";
}

std::string place(offload::ExpertId id) {
  return fmt::format(R"("layer":{},"expert":{})", id.layer, id.expert);
}

}  // namespace

TraceRecorder::TraceRecorder(const std::filesystem::path& file, SecondsClock clock)
    : clock_(std::move(clock)), start_s_(clock_()), writer_(file) {
  writer_.metadata(0, "process_name", R"("name":"moraine")");
  writer_.metadata(kComputeTrack, "thread_name", R"("name":"layers")");
  writer_.metadata(kStoreTrack, "thread_name", R"("name":"expert store")");
}

PartsAdapter TraceRecorder::adapter() {
  return [this](runtime::EngineParts& parts) {
    describe(parts);
    parts.dense = timed(std::move(parts.dense), *this, clock_);
    parts.expert_backend = timed(std::move(parts.expert_backend), *this, clock_);
    parts.store->observe([this](offload::StoreEvent event, offload::ExpertId id) { happened(event, id); });
  };
}

void TraceRecorder::describe(const runtime::EngineParts& parts) {
  const runtime::ModelConfig& config = parts.model->config;
  writer_.metadata(
      0, "moraine",
      fmt::format(R"("layers":{},"first_moe_layer":{},"experts":{},"top_k":{},"record_bytes":{},"slots":{})",
                  config.num_hidden_layers, config.first_k_dense_replace, config.n_routed_experts,
                  config.num_experts_per_tok, parts.experts.records->max_record_bytes(), parts.store->slot_count()));
}

void TraceRecorder::began_step(int32_t row_count) {
  const std::lock_guard lock(mutex_);
  const double now_us = microseconds(clock_());
  writer_.instant(kComputeTrack, "step", now_us, fmt::format(R"("rows":{})", row_count));
  write_counters(now_us);
  chosen_.assign(static_cast<size_t>(row_count), {});
  may_wait_ = false;
  writer_.flush();  // a trace of a program that crashes holds all steps before
}

void TraceRecorder::called(LayerKind kind, int layer, double begin_s, double end_s) {
  const std::lock_guard lock(mutex_);
  if (layer >= 0) layer_ = layer;
  const std::string args = fmt::format(R"("layer":{})", layer_);
  if (kind == LayerKind::kRouted && may_wait_ && begin_s - last_end_s_ >= kLeastWaitS) {
    writer_.span(kComputeTrack, "wait", microseconds(last_end_s_), microseconds(begin_s), args);
  }
  if (kind == LayerKind::kRouted) may_wait_ = true;
  if (kind == LayerKind::kAttention) may_wait_ = false;  // another layer has begun
  writer_.span(kComputeTrack, layer_kind_name(kind), microseconds(begin_s), microseconds(end_s), args);
  last_end_s_ = end_s;
  if (kind != LayerKind::kShared || chosen_.empty() || chosen_[0].empty()) return;
  write_choices();  // combine(): the layer is over
}

void TraceRecorder::computed(std::span<const offload::ExpertLease> leases,
                             std::span<const std::span<const runtime::ExpertUse>> uses) {
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < leases.size(); ++i) {
    layer_ = leases[i].id().layer;
    for (const runtime::ExpertUse& use : uses[i]) {
      const auto row = static_cast<size_t>(use.row);
      if (row < chosen_.size()) chosen_[row].push_back(leases[i].id().expert);
    }
  }
}

void TraceRecorder::write_choices() {
  std::string rows;
  for (std::vector<int32_t>& experts : chosen_) {
    std::sort(experts.begin(), experts.end());
    rows += fmt::format("{}[{}]", rows.empty() ? "" : ",", fmt::join(experts, ","));
    experts.clear();
  }
  writer_.instant(kComputeTrack, "experts", microseconds(last_end_s_),
                  fmt::format(R"("layer":{},"rows":[{}])", layer_, rows));
}

void TraceRecorder::write_counters(double at_us) {
  writer_.counter("store", at_us,
                  fmt::format(R"("hits":{},"misses":{},"late":{},"prefetches":{})", counts_[0], counts_[1], counts_[2],
                              counts_[3]));
}

void TraceRecorder::happened(offload::StoreEvent event, offload::ExpertId id) {
  const std::lock_guard lock(mutex_);
  const double now_us = microseconds(clock_());
  if (event == offload::StoreEvent::kReadEnded) {
    const auto read = reads_.find(id);
    if (read == reads_.end()) return;
    writer_.end("read", "read", read->second, now_us);
    reads_.erase(read);
  } else {
    ++counts_[static_cast<size_t>(event)];
    writer_.instant(kStoreTrack, event_name(event), now_us, place(id));
    if (event == offload::StoreEvent::kHit || event == offload::StoreEvent::kLatePrefetch) return;
    reads_[id] = next_read_;
    writer_.begin("read", "read", next_read_++, now_us, place(id));
  }
  writer_.counter("reads in flight", now_us, fmt::format(R"("reads":{})", reads_.size()));
}

std::unique_ptr<TraceRecorder> open_trace(const std::filesystem::path& file) {
  return file.empty() ? nullptr : std::make_unique<TraceRecorder>(file);
}

PartsAdapter adapter_of(const std::unique_ptr<TraceRecorder>& recorder) {
  return recorder ? recorder->adapter() : PartsAdapter();
}

void warn_if_cut(const std::unique_ptr<TraceRecorder>& recorder, Console& console) {
  if (recorder && !recorder->failure().empty()) console.line("the trace ends early: " + recorder->failure());
}

}  // namespace moraine::tools

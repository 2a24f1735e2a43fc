#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "offload/expert_store.h"
#include "tools/engine_setup.h"
#include "tools/timed_backend.h"
#include "tools/trace_writer.h"

namespace moraine::tools {

/// Records an engine at work into a trace file: every call of both ports with its layer, the waits for experts between
/// them, each token's chosen experts, and what the expert store does. It must outlive the engine.
class TraceRecorder final : public CallSink {
 public:
  /// Throws quant::Error if the file can't be written.
  explicit TraceRecorder(const std::filesystem::path& file, SecondsClock clock = steady_seconds());

  /// Puts the twins around an engine's backends and listens to its store.
  PartsAdapter adapter();

  void began_step(int32_t row_count) override;
  void called(LayerKind kind, int layer, double begin_s, double end_s) override;
  void computed(std::span<const offload::ExpertLease> leases,
                std::span<const std::span<const runtime::ExpertUse>> uses) override;
  /// Why the trace ended early, or empty.
  const std::string& failure() const { return writer_.failure(); }
  /// What the store did; from any thread.
  void happened(offload::StoreEvent event, offload::ExpertId id);

 private:
  void describe(const runtime::EngineParts& parts);
  double microseconds(double seconds) const { return (seconds - start_s_) * 1e6; }
  void write_choices();
  void write_counters(double at_us);

  SecondsClock clock_;
  double start_s_;
  std::mutex mutex_;  // guards what follows: the store tells from its own threads
  TraceWriter writer_;
  int layer_ = 0;                                // of the last call that knew it
  double last_end_s_ = 0.0;                      // of the last call
  bool may_wait_ = false;                        // between a layer's first and last expert call
  std::vector<std::vector<int32_t>> chosen_;     // [rows] experts of the layer under way
  std::map<offload::ExpertId, uint64_t> reads_;  // under way, with their ids in the trace
  uint64_t next_read_ = 1;
  std::array<uint64_t, 4> counts_ = {};  // hits, misses, late, prefetches so far
};

/// A recorder, or nothing if `file` is empty.
std::unique_ptr<TraceRecorder> open_trace(const std::filesystem::path& file);
/// Its adapter, or none.
PartsAdapter adapter_of(const std::unique_ptr<TraceRecorder>& recorder);
/// A line if the trace ended early.
void warn_if_cut(const std::unique_ptr<TraceRecorder>& recorder, Console& console);

}  // namespace moraine::tools

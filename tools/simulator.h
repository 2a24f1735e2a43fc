#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "offload/expert_cache.h"
#include "offload/prefetcher.h"
#include "runtime/hint_budget.h"
#include "tools/routing_source.h"

namespace moraine::tools {

/// Machine and model as a decoded token meets them.
struct SimulatedMachine {
  int slot_count = 0;             ///< records in RAM
  double record_bytes = 0.0;      ///< of one expert
  double disk_bytes_per_s = 0.0;  ///< of all drives together
  double read_latency_s = 1e-4;   ///< from asking an idle drive to its first byte
  double layer_dense_s = 0.0;     ///< attention and router of a MoE layer
  double layer_shared_s = 0.0;    ///< shared experts: computed while records arrive
  double expert_s = 0.0;          ///< one routed expert
  double other_s = 0.0;           ///< per token: dense layers, embedding, head
  double recall = 0.75;           ///< share of the next layer's experts among those hinted; 0: no prediction
  uint64_t seed = 1;              ///< of what the prediction misses
};

/// What came out, over the measured tokens.
struct SimulationResult {
  uint64_t tokens = 0;
  double total_s = 0.0;
  double stall_s = 0.0;      ///< waiting for records
  double disk_busy_s = 0.0;  ///< reading, for hints as well
  uint64_t hits = 0;
  uint64_t misses = 0;
  uint64_t late_prefetches = 0;
  uint64_t prefetches = 0;
  uint64_t useful_prefetches = 0;

  double tokens_per_s() const { return total_s > 0.0 ? static_cast<double>(tokens) / total_s : 0.0; }
  double hit_rate() const;
};

/// Decodes in virtual time: the store's own cache, policy and prefetcher and the runtime's hint budget, driven by a
/// routing and a modelled drive that serves what is wanted before what is hinted. One thread, no clock: the same seed
/// gives the same result.
class Simulator {
 public:
  Simulator(const SimulatedMachine& machine, RoutingSource& routing);

  /// Decodes `warm_up` tokens, then `tokens` that are measured.
  SimulationResult run(uint64_t warm_up, uint64_t tokens);

 private:
  /// A record under way from the drive.
  struct Transfer {
    offload::ExpertId id;
    int slot = -1;
    double left_bytes = 0.0;
    bool is_prefetch = false;  // begun for a hint
  };

  void decode_token();
  void run_layer(int layer, std::span<const int32_t> wanted, std::span<const int32_t> next_wanted);
  /// Leases the hits, queues the misses. Returns how many were hits.
  int acquire(int layer, std::span<const int32_t> wanted);
  void hint(int layer, std::span<const int32_t> truth);
  /// Lets the drive work until `until_s`; begins hinted records when nothing is wanted.
  void run_disk(double until_s);
  /// Lets it work until the first wanted record is there; returns when.
  double finish_demand();
  void serve(std::deque<Transfer>& queue, double until_s);
  void compute(double seconds);

  SimulatedMachine machine_;
  RoutingSource& routing_;
  offload::ExpertCache cache_;
  offload::Prefetcher prefetcher_;
  runtime::HintBudget budget_;
  offload::StoreCounters counters_;  // what the budget goes by
  std::mt19937_64 random_;
  std::deque<Transfer> demand_, hinted_;
  std::vector<int> pinned_;
  std::vector<int32_t> token_;  // [moe_layers × top_k]
  double now_s_ = 0.0;          // of the computation
  double disk_s_ = 0.0;         // until when the drive's work is known; never behind what was asked
  SimulationResult result_;
};

}  // namespace moraine::tools

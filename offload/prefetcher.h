#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "offload/expert_cache.h"
#include "offload/expert_id.h"

namespace moraine::offload {

struct PrefetchLimits {
  int max_in_flight = 4;  ///< records read for hints at a time: what a demand read may have to wait behind
};

/// Turns hints into loads within budgets. At most half of the slots that are not pinned, or all but kKeptSlots, hold
/// prefetched records that nobody wanted yet, so prefetching can't starve the running layer; beyond that only older
/// wrong guesses make room. A record that is pinned, or hinted now, is never given up for another hint. Bookkeeping
/// only; the store reads.
class Prefetcher {
 public:
  explicit Prefetcher(const PrefetchLimits& limits = {}) : limits_(limits) {}

  /// These hints, likeliest first, instead of those not begun; so many at most are read. Hinted records that are in RAM
  /// are kept there for now.
  void replace(std::span<const ExpertId> likely, ExpertCache& cache, size_t most_reads = kAll);
  static constexpr size_t kAll = static_cast<size_t>(-1);

  /// A hint to read now, with the slot taken for it.
  struct Begin {
    ExpertId id;
    int slot = -1;
  };
  /// Nothing if no hint may begin now; those that have no room stay until replaced.
  std::optional<Begin> next(ExpertCache& cache);
  /// A load that next() began has ended, well or not.
  void ended();

  bool has_hints() const { return reads_left_ > 0 && begun_ < hints_.size(); }
  /// Whether the latest hints named this expert, begun or not. / How many experts of that layer they named.
  bool is_hinted(ExpertId id) const;
  size_t hinted_of_layer(int32_t layer) const;
  /// True if the drive had no time for any of the latest kSaturatedAfter lists of hints: then they are not worth their
  /// prediction.
  bool is_saturated() const { return lists_without_room_ >= kSaturatedAfter; }
  static constexpr int kSaturatedAfter = 32;
  static constexpr int kKeptSlots = 24;
  /// Hints that were given up: replaced before they began.
  uint64_t dropped() const { return dropped_; }

 private:
  const PrefetchLimits limits_;
  std::vector<ExpertId> hints_;  // likeliest first
  size_t begun_ = 0;             // hints_[0 .. begun_) are read, in RAM or wanted already
  size_t reads_left_ = 0;        // that may begin for the latest list
  int in_flight_ = 0;
  bool any_begun_ = false;  // a read was begun for the latest list
  int lists_without_room_ = 0;
  uint64_t dropped_ = 0;
};

}  // namespace moraine::offload

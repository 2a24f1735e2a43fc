#pragma once

#include <cstdint>
#include <set>
#include <unordered_map>
#include <vector>

#include "offload/eviction_policy.h"

namespace moraine::offload {

/// Gives up the record of least worth: worth(expert) = Σ over the times it was wanted of ½^(age / half-life), age in
/// wants of any expert. A long half-life counts frequency, a short one recency. Worth outlives the record, so an expert
/// that returns is known. Scans change no worth: what only a scan has wanted is worth nothing and goes first, the
/// newest before the older, so that a prompt of many chunks finds the same part of the model in RAM in every chunk.
///
/// All worths halve together, so their order changes only where a want is added. Kept as log2(worth) + age of the
/// world / half-life, a number that time does not change.
class LfruPolicy : public EvictionPolicy {
 public:
  /// Half-life in wants per slot. Longer ones win where fame alone decides, and lose where a token wants what the one
  /// before it wanted (docs/memory_plan.md).
  static constexpr double kHalfLifeWantsPerSlot = 4.0;

  explicit LfruPolicy(int slot_count, double half_life_wants_per_slot = kHalfLifeWantsPerSlot);

  void wanted(ExpertId id, bool in_scan) override;
  void hinted(int slot) override;
  void inserted(int slot, ExpertId id) override;
  void removed(int slot) override;
  int victim(const std::function<bool(int slot)>& may_evict) const override;
  std::vector<ExpertId> hottest() const override;

 private:
  /// A record's rank: least first.
  struct Rank {
    double log_worth;
    int64_t newness;  // negative number of the arrival: the newest of equal worth goes first
    int slot;
    auto operator<=>(const Rank&) const = default;
  };
  struct Held {
    ExpertId id;
    int64_t newness = 0;
    std::set<Rank>::iterator rank = {};
    bool is_held = false;
  };

  Held& held(int slot);
  double log_worth(ExpertId id) const;
  double with_one_want_now(double log_worth) const;
  void place(int slot, double log_worth);

  const double half_life_wants_;
  double wants_ = 0;  // the age of the world
  int64_t arrivals_ = 0;
  std::unordered_map<ExpertId, double> log_worth_;  // of experts that were wanted outside scans
  std::unordered_map<ExpertId, int> slot_of_;
  std::vector<Held> held_;  // [slot_count]
  std::set<Rank> ranks_;
};

}  // namespace moraine::offload

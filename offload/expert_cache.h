#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "offload/eviction_policy.h"
#include "offload/expert_id.h"

namespace moraine::offload {

/// Which record lies in which slot: Empty → Loading → Ready → Empty. Pinned records stay. Bookkeeping only: no bytes,
/// no threads, no locks.
class ExpertCache {
 public:
  enum class State : uint8_t { kEmpty, kLoading, kReady };

  ExpertCache(int slot_count, std::unique_ptr<EvictionPolicy> policy);

  /// Slots that were not retired.
  int slot_count() const { return static_cast<int>(slots_.size() - retired_.size()); }
  /// The slot in which the record is loading or ready, −1 if it is in none.
  int find(ExpertId id) const;
  State state(int slot) const { return at(slot).state; }
  ExpertId id(int slot) const { return at(slot).id; }

  /// Takes a slot to load `id` into: an empty one, else the policy's victim among the unpinned; −1 if there is none.
  int take(ExpertId id);
  /// The same for a prefetch: the victim is one that `may_evict` allows, and the record counts as unused until use().
  int take_for_prefetch(ExpertId id, const std::function<bool(int slot)>& may_evict);
  /// Gives up the policy's victim among the unpinned records that `may_evict` allows; false if there is none.
  bool evict(const std::function<bool(int slot)>& may_evict);
  /// Takes a slot out of use, an empty one or the policy's victim among the unpinned; −1 if there is none.
  int retire();
  /// Takes a retired slot into use again, empty; −1 if there is none.
  int revive();
  bool is_retired(int slot) const { return std::find(retired_.begin(), retired_.end(), slot) != retired_.end(); }
  int empty_count() const { return static_cast<int>(empty_slots_.size()); }
  /// The load into `slot` ended well: the record is Ready. / It did not: the slot is Empty.
  void loaded(int slot);
  void failed(int slot);

  /// Pinned records are never evicted; pins count.
  void pin(int slot);
  void unpin(int slot);
  int pins(int slot) const { return at(slot).pins; }
  /// `id` is wanted now, whether it is in a slot or not; see EvictionPolicy::wanted().
  void wanted(ExpertId id, bool in_scan) { policy_->wanted(id, in_scan); }
  /// The record in `slot` is used. True if it was prefetched and this is its first use.
  bool use(int slot);
  /// The Ready record in `slot` is likely to be wanted soon.
  void touch(int slot);
  bool is_unused_prefetch(int slot) const { return at(slot).unused_prefetch; }

  /// Records that are loading or ready.
  size_t record_count() const { return slot_of_.size(); }
  int pinned_count() const { return pinned_count_; }
  /// Slots that hold, or load, a prefetched record that nobody wanted yet.
  int unused_prefetch_count() const { return unused_prefetch_count_; }
  uint64_t evictions() const { return evictions_; }
  /// Prefetched records that were given up before anybody wanted them.
  uint64_t wasted_prefetches() const { return wasted_prefetches_; }
  /// See EvictionPolicy::hottest().
  std::vector<ExpertId> hottest() const { return policy_->hottest(); }

 private:
  struct Slot {
    State state = State::kEmpty;
    ExpertId id;
    int pins = 0;
    bool unused_prefetch = false;
  };
  Slot& at(int slot);
  const Slot& at(int slot) const;
  int take_slot(ExpertId id, const std::function<bool(int slot)>& may_evict);
  void empty(int slot);

  std::vector<Slot> slots_;
  std::vector<int> empty_slots_, retired_;
  std::unordered_map<ExpertId, int> slot_of_;
  std::unique_ptr<EvictionPolicy> policy_;
  int pinned_count_ = 0;
  int unused_prefetch_count_ = 0;
  uint64_t evictions_ = 0;
  uint64_t wasted_prefetches_ = 0;
};

}  // namespace moraine::offload

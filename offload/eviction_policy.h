#pragma once

#include <functional>
#include <vector>

#include "offload/expert_id.h"

namespace moraine::offload {

/// Port: which record to give up when a slot is needed. It hears of every expert that is wanted, sees the slots whose
/// records are in RAM, and is asked under the store's lock. Only time depends on it, never a result.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;

  /// `id` is wanted now, whether it is in RAM or not. `in_scan`: together with most of its layer, as a long prompt
  /// wants it, which tells nothing about what will be wanted next.
  virtual void wanted(ExpertId id, bool in_scan) = 0;
  /// The record in `slot` is likely to be wanted soon.
  virtual void hinted(int slot) = 0;
  /// A record arrived in `slot`. / `slot` was emptied.
  virtual void inserted(int slot, ExpertId id) = 0;
  virtual void removed(int slot) = 0;
  /// The slot to give up among those that `may_evict` allows, −1 if it allows none. Changes nothing.
  virtual int victim(const std::function<bool(int slot)>& may_evict) const = 0;
  /// Experts worth having in RAM at the next start, in RAM now or not, the most valuable first.
  virtual std::vector<ExpertId> hottest() const = 0;
};

}  // namespace moraine::offload

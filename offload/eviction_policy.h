#pragma once

#include <functional>

#include "offload/expert_id.h"

namespace moraine::offload {

/// Port: which record to give up when a slot is needed. It sees the slots whose records are in RAM, and is asked under
/// the store's lock. Only time depends on it, never a result.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;

  /// A record arrived in `slot`.
  virtual void inserted(int slot, ExpertId id) = 0;
  /// The record in `slot` was wanted, or is likely to be soon.
  virtual void touched(int slot) = 0;
  /// `slot` was emptied.
  virtual void removed(int slot) = 0;
  /// The slot to give up among those that `may_evict` allows, −1 if it allows none. Changes nothing.
  virtual int victim(const std::function<bool(int slot)>& may_evict) const = 0;
};

}  // namespace moraine::offload

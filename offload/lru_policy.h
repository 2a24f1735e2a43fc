#pragma once

#include <list>
#include <vector>

#include "offload/eviction_policy.h"

namespace moraine::offload {

/// Gives up the record that was wanted longest ago.
class LruPolicy : public EvictionPolicy {
 public:
  explicit LruPolicy(int slot_count);

  void inserted(int slot, ExpertId id) override;
  void touched(int slot) override;
  void removed(int slot) override;
  int victim(const std::function<bool(int slot)>& may_evict) const override;

 private:
  std::list<int>::iterator& place(int slot);

  std::list<int> slots_;                          // wanted longest ago first
  std::vector<std::list<int>::iterator> places_;  // [slot_count] end(): not in slots_
};

}  // namespace moraine::offload

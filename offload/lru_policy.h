#pragma once

#include <list>
#include <unordered_map>
#include <vector>

#include "offload/eviction_policy.h"

namespace moraine::offload {

/// Gives up the record that was wanted, hinted or loaded longest ago. The yardstick for LfruPolicy, which the store
/// uses.
class LruPolicy : public EvictionPolicy {
 public:
  explicit LruPolicy(int slot_count);

  void wanted(ExpertId id, bool in_scan) override;
  void hinted(int slot) override;
  void inserted(int slot, ExpertId id) override;
  void removed(int slot) override;
  int victim(const std::function<bool(int slot)>& may_evict) const override;
  std::vector<ExpertId> hottest() const override;

 private:
  struct Place {
    ExpertId id;
    int slot = -1;
  };
  using Places = std::list<Place>;
  Places::iterator& place(int slot);

  Places order_;                          // oldest first
  std::vector<Places::iterator> places_;  // [slot_count] end(): not in order_
  std::unordered_map<ExpertId, int> slot_of_;
};

}  // namespace moraine::offload

#include "offload/lru_policy.h"

#include "quant/error.h"

namespace moraine::offload {

LruPolicy::LruPolicy(int slot_count) : places_(static_cast<size_t>(slot_count), order_.end()) {}

LruPolicy::Places::iterator& LruPolicy::place(int slot) {
  MORAINE_CHECK(slot >= 0 && static_cast<size_t>(slot) < places_.size());
  return places_[static_cast<size_t>(slot)];
}

void LruPolicy::wanted(ExpertId id, bool) {
  const auto found = slot_of_.find(id);
  if (found != slot_of_.end()) hinted(found->second);
}

void LruPolicy::hinted(int slot) {
  MORAINE_CHECK(place(slot) != order_.end());
  order_.splice(order_.end(), order_, place(slot));
}

void LruPolicy::inserted(int slot, ExpertId id) {
  MORAINE_CHECK(place(slot) == order_.end());
  place(slot) = order_.insert(order_.end(), {id, slot});
  slot_of_[id] = slot;
}

void LruPolicy::removed(int slot) {
  MORAINE_CHECK(place(slot) != order_.end());
  slot_of_.erase(place(slot)->id);
  order_.erase(place(slot));
  place(slot) = order_.end();
}

int LruPolicy::victim(const std::function<bool(int slot)>& may_evict) const {
  for (const Place& oldest : order_) {
    if (may_evict(oldest.slot)) return oldest.slot;
  }
  return -1;
}

std::vector<ExpertId> LruPolicy::hottest() const {
  std::vector<ExpertId> ids;
  for (auto newest = order_.rbegin(); newest != order_.rend(); ++newest) ids.push_back(newest->id);
  return ids;
}

}  // namespace moraine::offload

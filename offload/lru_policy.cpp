#include "offload/lru_policy.h"

#include "quant/error.h"

namespace moraine::offload {

LruPolicy::LruPolicy(int slot_count) : places_(static_cast<size_t>(slot_count), slots_.end()) {}

std::list<int>::iterator& LruPolicy::place(int slot) {
  MORAINE_CHECK(slot >= 0 && static_cast<size_t>(slot) < places_.size());
  return places_[static_cast<size_t>(slot)];
}

void LruPolicy::inserted(int slot, ExpertId) {
  MORAINE_CHECK(place(slot) == slots_.end());
  place(slot) = slots_.insert(slots_.end(), slot);
}

void LruPolicy::touched(int slot) {
  MORAINE_CHECK(place(slot) != slots_.end());
  slots_.splice(slots_.end(), slots_, place(slot));
}

void LruPolicy::removed(int slot) {
  MORAINE_CHECK(place(slot) != slots_.end());
  slots_.erase(place(slot));
  place(slot) = slots_.end();
}

int LruPolicy::victim(const std::function<bool(int slot)>& may_evict) const {
  for (const int slot : slots_) {
    if (may_evict(slot)) return slot;
  }
  return -1;
}

}  // namespace moraine::offload

#include "offload/expert_cache.h"

#include <utility>

#include "quant/error.h"

namespace moraine::offload {

ExpertCache::ExpertCache(int slot_count, std::unique_ptr<EvictionPolicy> policy)
    : slots_(static_cast<size_t>(slot_count)), policy_(std::move(policy)) {
  for (int slot = slot_count - 1; slot >= 0; --slot) empty_slots_.push_back(slot);
}

ExpertCache::Slot& ExpertCache::at(int slot) {
  return const_cast<Slot&>(std::as_const(*this).at(slot));
}

const ExpertCache::Slot& ExpertCache::at(int slot) const {
  MORAINE_CHECK(slot >= 0 && static_cast<size_t>(slot) < slots_.size());
  return slots_[static_cast<size_t>(slot)];
}

int ExpertCache::find(ExpertId id) const {
  const auto found = slot_of_.find(id);
  return found == slot_of_.end() ? -1 : found->second;
}

void ExpertCache::empty(int slot) {
  Slot& entry = at(slot);
  MORAINE_CHECK(entry.pins == 0);
  if (entry.unused_prefetch) --unused_prefetch_count_;
  slot_of_.erase(entry.id);
  entry = {};
  empty_slots_.push_back(slot);
}

bool ExpertCache::evict(const std::function<bool(int slot)>& may_evict) {
  const int victim = policy_->victim([&](int slot) { return at(slot).pins == 0 && may_evict(slot); });
  if (victim < 0) return false;
  MORAINE_CHECK(at(victim).state == State::kReady);
  policy_->removed(victim);
  ++evictions_;
  if (at(victim).unused_prefetch) ++wasted_prefetches_;
  empty(victim);
  return true;
}

int ExpertCache::take_slot(ExpertId id, const std::function<bool(int slot)>& may_evict) {
  MORAINE_CHECK(find(id) < 0);
  if (empty_slots_.empty() && !evict(may_evict)) return -1;
  const int slot = empty_slots_.back();
  empty_slots_.pop_back();
  at(slot).state = State::kLoading;
  at(slot).id = id;
  slot_of_[id] = slot;
  return slot;
}

int ExpertCache::take(ExpertId id) {
  return take_slot(id, [](int) { return true; });
}

int ExpertCache::take_for_prefetch(ExpertId id, const std::function<bool(int slot)>& may_evict) {
  const int slot = take_slot(id, may_evict);
  if (slot < 0) return slot;
  at(slot).unused_prefetch = true;
  ++unused_prefetch_count_;
  return slot;
}

int ExpertCache::retire() {
  if (empty_slots_.empty() && !evict([](int) { return true; })) return -1;
  const int slot = empty_slots_.back();
  empty_slots_.pop_back();
  retired_.push_back(slot);
  return slot;
}

int ExpertCache::revive() {
  if (retired_.empty()) return -1;
  const int slot = retired_.back();
  retired_.pop_back();
  empty_slots_.push_back(slot);
  return slot;
}

void ExpertCache::loaded(int slot) {
  Slot& entry = at(slot);
  MORAINE_CHECK(entry.state == State::kLoading);
  entry.state = State::kReady;
  policy_->inserted(slot, entry.id);
  if (entry.unused_prefetch) policy_->hinted(slot);
}

void ExpertCache::failed(int slot) {
  MORAINE_CHECK(at(slot).state == State::kLoading);
  empty(slot);
}

void ExpertCache::pin(int slot) {
  Slot& entry = at(slot);
  MORAINE_CHECK(entry.state == State::kReady);
  if (entry.pins++ == 0) ++pinned_count_;
}

void ExpertCache::unpin(int slot) {
  Slot& entry = at(slot);
  MORAINE_CHECK(entry.pins > 0);
  if (--entry.pins == 0) --pinned_count_;
}

bool ExpertCache::use(int slot) {
  Slot& entry = at(slot);
  if (!std::exchange(entry.unused_prefetch, false)) return false;
  --unused_prefetch_count_;
  return true;
}

void ExpertCache::touch(int slot) {
  MORAINE_CHECK(at(slot).state == State::kReady);
  policy_->hinted(slot);
}

}  // namespace moraine::offload

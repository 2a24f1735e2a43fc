#include "offload/prefetcher.h"

#include <algorithm>

#include "quant/error.h"

namespace moraine::offload {

bool Prefetcher::is_hinted(ExpertId id) const {
  return std::find(hints_.begin(), hints_.end(), id) != hints_.end();
}

size_t Prefetcher::hinted_of_layer(int32_t layer) const {
  return static_cast<size_t>(
      std::count_if(hints_.begin(), hints_.end(), [layer](ExpertId id) { return id.layer == layer; }));
}

void Prefetcher::replace(std::span<const ExpertId> likely, ExpertCache& cache, size_t most_reads) {
  bool any_dropped = false;
  for (size_t i = begun_; i < hints_.size() && reads_left_ > 0; ++i) {
    if (cache.find(hints_[i]) >= 0) continue;
    ++dropped_;
    --reads_left_;
    any_dropped = true;
  }
  if (any_begun_) lists_without_room_ = 0;
  if (any_dropped && !any_begun_) ++lists_without_room_;
  any_begun_ = false;
  hints_.assign(likely.begin(), likely.end());
  begun_ = 0;
  reads_left_ = most_reads;
  // The likeliest is touched last, so that it is given up last.
  for (auto id = likely.rbegin(); id != likely.rend(); ++id) {
    const int slot = cache.find(*id);
    if (slot >= 0 && cache.state(slot) == ExpertCache::State::kReady) cache.touch(slot);
  }
}

std::optional<Prefetcher::Begin> Prefetcher::next(ExpertCache& cache) {
  while (has_hints() && cache.find(hints_[begun_]) >= 0) ++begun_;
  if (!has_hints() || in_flight_ >= limits_.max_in_flight) return std::nullopt;

  const int unpinned = cache.slot_count() - cache.pinned_count();
  const int share = std::max(unpinned / 2, unpinned - kKeptSlots);
  if (share == 0) return std::nullopt;
  const auto is_wrong_guess = [&](int slot) { return cache.is_unused_prefetch(slot) && !is_hinted(cache.id(slot)); };
  while (cache.unused_prefetch_count() >= share) {
    if (!cache.evict(is_wrong_guess)) return std::nullopt;
  }
  const ExpertId id = hints_[begun_];
  const int slot = cache.take_for_prefetch(id, [&](int victim) { return !is_hinted(cache.id(victim)); });
  if (slot < 0) return std::nullopt;
  ++begun_;
  --reads_left_;
  any_begun_ = true;
  ++in_flight_;
  return Begin{id, slot};
}

void Prefetcher::ended() {
  MORAINE_CHECK(in_flight_ > 0);
  --in_flight_;
}

}  // namespace moraine::offload

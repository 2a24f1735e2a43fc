#include "offload/prefetcher.h"

#include <gtest/gtest.h>

#include "offload/lru_policy.h"

namespace moraine::offload {
namespace {

ExpertCache cache_of(int slot_count) {
  return {slot_count, std::make_unique<LruPolicy>(slot_count)};
}

void fill(ExpertCache& cache, int layer) {
  for (int expert = 0; expert < cache.slot_count(); ++expert) cache.loaded(cache.take({layer, expert}));
}

std::vector<ExpertId> layer(int number, int count) {
  std::vector<ExpertId> ids;
  for (int expert = 0; expert < count; ++expert) ids.push_back({number, expert});
  return ids;
}

/// Begins and ends all that may begin now; returns the experts.
std::vector<ExpertId> prefetch_all(Prefetcher& prefetcher, ExpertCache& cache) {
  std::vector<ExpertId> begun;
  while (const std::optional<Prefetcher::Begin> begin = prefetcher.next(cache)) {
    begun.push_back(begin->id);
    cache.loaded(begin->slot);
    prefetcher.ended();
  }
  return begun;
}

TEST(Prefetcher, ReadsTheLikeliestFirst) {
  ExpertCache cache = cache_of(8);
  Prefetcher prefetcher;
  prefetcher.replace(std::vector<ExpertId>{{2, 7}, {2, 1}}, cache);
  EXPECT_EQ(prefetch_all(prefetcher, cache), (std::vector<ExpertId>{{2, 7}, {2, 1}}));
  EXPECT_EQ(prefetcher.dropped(), 0u);
}

TEST(Prefetcher, TakesAtMostHalfOfTheSlots) {
  ExpertCache cache = cache_of(8);
  fill(cache, 1);
  Prefetcher prefetcher;
  prefetcher.replace(layer(2, 8), cache);
  EXPECT_EQ(prefetch_all(prefetcher, cache), layer(2, 4));
  // New hints drop the four that did not begin.
  prefetcher.replace(layer(3, 1), cache);
  EXPECT_EQ(prefetcher.dropped(), 4u);
}

TEST(Prefetcher, LeavesNoMoreOfManySlotsThanALayerNeeds) {
  ExpertCache cache = cache_of(100);
  fill(cache, 1);
  Prefetcher prefetcher;
  prefetcher.replace(layer(2, 100), cache);
  EXPECT_EQ(prefetch_all(prefetcher, cache), layer(2, 100 - Prefetcher::kKeptSlots));
}

TEST(Prefetcher, PinnedSlotsShrinkItsShare) {
  ExpertCache cache = cache_of(8);
  fill(cache, 1);
  for (int slot = 0; slot < 7; ++slot) cache.pin(slot);
  Prefetcher prefetcher;
  prefetcher.replace(layer(2, 8), cache);
  EXPECT_TRUE(prefetch_all(prefetcher, cache).empty()) << "half of the one free slot is none";
  cache.unpin(0);
  EXPECT_EQ(prefetch_all(prefetcher, cache).size(), 1u) << "the hints are still there";
}

TEST(Prefetcher, OneSlotIsNeverTaken) {
  ExpertCache cache = cache_of(1);
  Prefetcher prefetcher;
  prefetcher.replace(layer(2, 3), cache);
  EXPECT_FALSE(prefetcher.next(cache));
}

TEST(Prefetcher, WrongGuessesMakeRoomForNewOnes) {
  ExpertCache cache = cache_of(8);
  fill(cache, 1);
  Prefetcher prefetcher;
  prefetcher.replace(layer(2, 4), cache);
  prefetch_all(prefetcher, cache);
  prefetcher.replace(layer(3, 4), cache);
  EXPECT_EQ(prefetch_all(prefetcher, cache), layer(3, 4));
  EXPECT_EQ(cache.find({2, 0}), -1);
  int kept = 0;
  for (int expert = 0; expert < 8; ++expert) kept += cache.find({1, expert}) >= 0 ? 1 : 0;
  EXPECT_EQ(kept, 4) << "the second round cost layer 1 nothing";
}

TEST(Prefetcher, NeverGivesUpWhatIsHintedNow) {
  ExpertCache cache = cache_of(2);
  fill(cache, 1);
  Prefetcher prefetcher;
  prefetcher.replace(std::vector<ExpertId>{{1, 0}, {1, 1}, {2, 0}}, cache);
  EXPECT_FALSE(prefetcher.next(cache));
}

TEST(Prefetcher, BoundsWhatIsInFlight) {
  ExpertCache cache = cache_of(16);
  Prefetcher prefetcher({.max_in_flight = 2});
  prefetcher.replace(layer(2, 4), cache);
  EXPECT_TRUE(prefetcher.next(cache));
  EXPECT_TRUE(prefetcher.next(cache));
  EXPECT_FALSE(prefetcher.next(cache));
  prefetcher.ended();
  EXPECT_TRUE(prefetcher.next(cache));
}

TEST(Prefetcher, SkipsWhatIsInRamWithoutCallingItDropped) {
  ExpertCache cache = cache_of(8);
  cache.loaded(cache.take({2, 0}));
  Prefetcher prefetcher;
  prefetcher.replace(layer(2, 2), cache);
  EXPECT_EQ(prefetch_all(prefetcher, cache), (std::vector<ExpertId>{{2, 1}}));
  prefetcher.replace({}, cache);
  EXPECT_EQ(prefetcher.dropped(), 0u);
}

}  // namespace
}  // namespace moraine::offload

#include "offload/expert_cache.h"

#include <gtest/gtest.h>

#include "offload/lru_policy.h"

namespace moraine::offload {
namespace {

constexpr ExpertId kA{1, 0}, kB{1, 1}, kC{1, 2};

ExpertCache cache_of(int slot_count) {
  return {slot_count, std::make_unique<LruPolicy>(slot_count)};
}

int load(ExpertCache& cache, ExpertId id) {
  const int slot = cache.take(id);
  if (slot >= 0) cache.loaded(slot);
  return slot;
}

TEST(ExpertCache, ARecordGoesFromLoadingToReadyToEmpty) {
  ExpertCache cache = cache_of(1);
  EXPECT_EQ(cache.find(kA), -1);
  const int slot = cache.take(kA);
  ASSERT_EQ(slot, 0);
  EXPECT_EQ(cache.state(slot), ExpertCache::State::kLoading);
  EXPECT_EQ(cache.take(kB), -1) << "a slot that is loading is not given up";
  cache.loaded(slot);
  EXPECT_EQ(cache.state(cache.find(kA)), ExpertCache::State::kReady);
  EXPECT_EQ(load(cache, kB), 0);
  EXPECT_EQ(cache.find(kA), -1);
  EXPECT_EQ(cache.evictions(), 1u);
}

TEST(ExpertCache, AFailedLoadLeavesTheSlotEmpty) {
  ExpertCache cache = cache_of(1);
  cache.failed(cache.take(kA));
  EXPECT_EQ(cache.find(kA), -1);
  EXPECT_EQ(cache.take(kA), 0);
  EXPECT_EQ(cache.evictions(), 0u);
}

TEST(ExpertCache, PinnedRecordsStay) {
  ExpertCache cache = cache_of(2);
  const int a = load(cache, kA);
  const int b = load(cache, kB);
  cache.pin(a);
  cache.pin(a);
  cache.pin(b);
  EXPECT_EQ(cache.pinned_count(), 2);
  EXPECT_EQ(cache.take(kC), -1);
  cache.unpin(a);
  EXPECT_EQ(cache.take(kC), -1) << "pins count";
  cache.unpin(a);
  EXPECT_EQ(cache.take(kC), a);
  EXPECT_GE(cache.find(kB), 0);
}

TEST(ExpertCache, RemembersWhichPrefetchesWereUsed) {
  ExpertCache cache = cache_of(2);
  const int a = cache.take_for_prefetch(kA, [](int) { return true; });
  EXPECT_EQ(cache.unused_prefetch_count(), 1);
  EXPECT_TRUE(cache.use(a)) << "wanted while it is still loading";
  EXPECT_FALSE(cache.use(a)) << "used once only";
  EXPECT_EQ(cache.unused_prefetch_count(), 0);
  cache.loaded(a);

  const int b = cache.take_for_prefetch(kB, [](int) { return true; });
  cache.loaded(b);
  cache.touch(a);
  EXPECT_EQ(load(cache, kC), b);
  EXPECT_EQ(cache.unused_prefetch_count(), 0) << "evicted unused";
}

TEST(ExpertCache, APrefetchEvictsOnlyWhatItMay) {
  ExpertCache cache = cache_of(2);
  const int a = load(cache, kA);
  load(cache, kB);
  EXPECT_EQ(cache.take_for_prefetch(kC, [](int) { return false; }), -1);
  EXPECT_NE(cache.take_for_prefetch(kC, [a](int slot) { return slot != a; }), a);
  EXPECT_EQ(cache.find(kA), a);
}

TEST(ExpertCacheDeathTest, UnbalancedPinsFailACheck) {
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  ExpertCache cache = cache_of(1);
  load(cache, kA);
  EXPECT_DEATH(cache.unpin(0), "internal error");
}

}  // namespace
}  // namespace moraine::offload

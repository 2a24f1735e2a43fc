#include "cpu/latent_cache.h"

#include <gtest/gtest.h>

namespace moraine::cpu {
namespace {

constexpr uint64_t page_bytes(uint64_t layers, uint64_t stride) {
  return layers * LatentCache::kPageTokens * stride * sizeof(float);
}

TEST(LatentCache, TakesPagesAsTokensCome) {
  LatentCache cache(3, 80);
  EXPECT_EQ(cache.size_bytes(), 0u);
  EXPECT_EQ(cache.token_count(), 0);
  cache.reserve(1);
  EXPECT_EQ(cache.token_count(), 0);
  const uint64_t one = cache.size_bytes();
  EXPECT_GE(one, page_bytes(3, 80));
  EXPECT_LT(one, page_bytes(3, 80) + 4096);
  cache.commit(1);
  cache.reserve(64);
  EXPECT_EQ(cache.size_bytes(), one);
  cache.reserve(65);
  EXPECT_EQ(cache.size_bytes(), 2 * one);
}

TEST(LatentCache, RowsKeepTheirPlaceWhileItGrows) {
  LatentCache cache(2, 15);
  EXPECT_EQ(cache.stride(), 16);
  cache.reserve(40);
  for (int64_t position = 0; position < 40; ++position) {
    for (int64_t layer = 0; layer < 2; ++layer)
      cache.row(layer, position)[14] = static_cast<float>(100 * layer + position);
  }
  cache.commit(40);
  cache.reserve(500);
  cache.row(1, 499)[0] = 7.0f;
  for (int64_t position = 0; position < 40; ++position) {
    EXPECT_EQ(cache.page(0, 0)[position * cache.stride() + 14], static_cast<float>(position));
    EXPECT_EQ(cache.page(1, 0)[position * cache.stride() + 14], static_cast<float>(100 + position));
  }
  EXPECT_EQ(cache.page(1, 7)[(499 - 448) * cache.stride()], 7.0f);
}

TEST(LatentCache, TruncateForgetsTokensAndGivesPagesBack) {
  LatentCache cache(1, 16);
  cache.reserve(200);
  cache.commit(200);
  const uint64_t four = cache.size_bytes();
  cache.row(0, 64)[3] = 5.0f;
  cache.truncate(65);
  EXPECT_EQ(cache.token_count(), 65);
  EXPECT_EQ(cache.size_bytes(), four / 2);
  EXPECT_EQ(cache.row(0, 64)[3], 5.0f);
  cache.truncate(64);
  EXPECT_EQ(cache.size_bytes(), four / 4);
  cache.truncate(0);
  EXPECT_EQ(cache.size_bytes(), 0u);
}

TEST(LatentCacheDeathTest, RefusesWhatIsNotThere) {
  LatentCache cache(1, 16);
  cache.reserve(10);
  cache.commit(10);
  EXPECT_DEATH(cache.truncate(11), "token_count");
  EXPECT_DEATH(cache.truncate(-1), "token_count");
  EXPECT_DEATH(cache.row(0, 64), "pages");
  EXPECT_DEATH(cache.row(1, 0), "layer");
  EXPECT_DEATH(cache.commit(9), "token_count");
}

}  // namespace
}  // namespace moraine::cpu

#include "cpu/head_cache.h"

#include <gtest/gtest.h>

namespace moraine::cpu {
namespace {

TEST(HeadCache, TakesPagesAsTokensComeAndGivesThemBack) {
  HeadCache cache(3, 2, 24);
  EXPECT_EQ(cache.value_stride(), 32);
  EXPECT_EQ(cache.size_bytes(), 0u);
  cache.reserve(64);
  const uint64_t one = cache.size_bytes();
  EXPECT_GE(one, 3u * 2 * HeadCache::kPageTokens * (24 + 32) * sizeof(float));
  cache.reserve(65);
  EXPECT_EQ(cache.size_bytes(), 2 * one);
  EXPECT_EQ(cache.token_count(), 0);
  cache.commit(65);
  EXPECT_EQ(cache.token_count(), 65);
  cache.truncate(64);
  EXPECT_EQ(cache.size_bytes(), one);
  cache.truncate(0);
  EXPECT_EQ(cache.size_bytes(), 0u);
}

TEST(HeadCache, KeysLieSixteenTokensBesideEachOtherAndValuesInRows) {
  HeadCache cache(2, 3, 5);
  cache.reserve(150);
  const auto number = [](int64_t layer, int64_t head, int64_t position, int64_t c) {
    return static_cast<float>(((layer * 3 + head) * 150 + position) * 5 + c);
  };
  for (int64_t layer = 0; layer < 2; ++layer) {
    for (int64_t head = 0; head < 3; ++head) {
      for (int64_t position = 0; position < 150; ++position) {
        float key[5], value[5];
        for (int64_t c = 0; c < 5; ++c) {
          key[c] = number(layer, head, position, c);
          value[c] = -key[c];
        }
        cache.put(layer, head, position, key, value);
      }
    }
  }
  for (int64_t layer = 0; layer < 2; ++layer) {
    for (int64_t head = 0; head < 3; ++head) {
      for (int64_t position = 0; position < 150; ++position) {
        const int64_t token = position % 64;
        const float* keys = cache.keys(layer, head, position / 64);
        const float* values = cache.values(layer, head, position / 64);
        for (int64_t c = 0; c < 5; ++c) {
          ASSERT_EQ(keys[(token / 16 * 5 + c) * 16 + token % 16], number(layer, head, position, c));
          ASSERT_EQ(values[token * cache.value_stride() + c], -number(layer, head, position, c));
        }
      }
    }
  }
}

TEST(HeadCacheDeathTest, RefusesWhatIsNotThere) {
  HeadCache cache(1, 2, 4);
  cache.reserve(10);
  cache.commit(10);
  const float x[4] = {};
  EXPECT_DEATH(cache.truncate(11), "token_count");
  EXPECT_DEATH(cache.put(0, 0, 64, x, x), "pages");
  EXPECT_DEATH(cache.put(0, 2, 0, x, x), "head");
  EXPECT_DEATH(cache.keys(1, 0, 0), "layer");
  EXPECT_DEATH(cache.commit(9), "token_count");
}

}  // namespace
}  // namespace moraine::cpu

#include "cpu/head_cache.h"

#include <gtest/gtest.h>

#include <bit>

namespace moraine::cpu {
namespace {

TEST(HeadCache, TakesPagesAsTokensComeAndGivesThemBack) {
  HeadCache cache(3, 2, 24, CacheType::kF32);
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

TEST(HeadCache, F32KeysLieSixteenTokensBesideEachOtherAndValuesInRows) {
  HeadCache cache(2, 3, 5, CacheType::kF32);
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
        cache.put(scalar_kernels(), layer, head, position, key, value);
      }
    }
  }
  for (int64_t layer = 0; layer < 2; ++layer) {
    for (int64_t head = 0; head < 3; ++head) {
      for (int64_t position = 0; position < 150; ++position) {
        const int64_t token = position % 64;
        const float* keys = cache.f32_keys(layer, head, position / 64);
        const float* values = cache.f32_values(layer, head, position / 64);
        for (int64_t c = 0; c < 5; ++c) {
          ASSERT_EQ(keys[(token / 16 * 5 + c) * 16 + token % 16], number(layer, head, position, c));
          ASSERT_EQ(values[token * cache.value_stride() + c], -number(layer, head, position, c));
        }
      }
    }
  }
}

TEST(HeadCache, Bf16KeysLieInRowsAndValuesInPairs) {
  constexpr int64_t kDim = 40;  // keys padded to 64, values to 48
  HeadCache cache(2, 2, kDim, CacheType::kBf16);
  EXPECT_EQ(cache.key_stride(), 64);
  EXPECT_EQ(cache.value_stride(), 48);
  EXPECT_EQ(head_token_bytes(CacheType::kBf16, 2, kDim), 2 * (64 + 48) * 2);
  EXPECT_EQ(head_token_bytes(CacheType::kBf16, 8, 128) * 2, head_token_bytes(CacheType::kF32, 8, 128));
  cache.reserve(130);
  const auto number = [](int64_t layer, int64_t head, int64_t position, int64_t c) {
    return static_cast<float>(1 + (layer * 2 + head + position + 3 * c) % 251);  // 8 bits: exact in bf16
  };
  const auto bits = [](float x) { return static_cast<Bf16>(std::bit_cast<uint32_t>(x) >> 16); };
  for (int64_t layer = 0; layer < 2; ++layer) {
    for (int64_t head = 0; head < 2; ++head) {
      for (int64_t position = 0; position < 130; ++position) {
        float key[kDim], value[kDim];
        for (int64_t c = 0; c < kDim; ++c) {
          key[c] = number(layer, head, position, c);
          value[c] = -key[c];
        }
        cache.put(scalar_kernels(), layer, head, position, key, value);
      }
    }
  }
  for (int64_t layer = 0; layer < 2; ++layer) {
    for (int64_t head = 0; head < 2; ++head) {
      for (int64_t position = 0; position < 130; ++position) {
        const int64_t token = position % 64;
        const Bf16* keys = cache.bf16_keys(layer, head, position / 64);
        const Bf16Panel values = cache.bf16_values(layer, head, position / 64);
        ASSERT_EQ(values.group_count, 3);
        for (int64_t c = 0; c < 64; ++c) {
          const float expected = c < kDim ? number(layer, head, position, c) : 0.0f;
          ASSERT_EQ(keys[token * 64 + c], bits(expected)) << position << ' ' << c;
          if (c >= 48) continue;
          ASSERT_EQ(values.data[c / 16 * values.group_stride + token / 2 * 32 + c % 16 * 2 + token % 2],
                    c < kDim ? bits(-expected) : 0)
              << position << ' ' << c;
        }
      }
    }
  }
}

TEST(HeadCacheDeathTest, RefusesWhatIsNotThere) {
  HeadCache cache(1, 2, 4, CacheType::kF32);
  cache.reserve(10);
  cache.commit(10);
  const float x[4] = {};
  EXPECT_DEATH(cache.truncate(11), "token_count");
  EXPECT_DEATH(cache.put(scalar_kernels(), 0, 0, 64, x, x), "pages");
  EXPECT_DEATH(cache.put(scalar_kernels(), 0, 2, 0, x, x), "head");
  EXPECT_DEATH(cache.f32_keys(1, 0, 0), "layer");
  EXPECT_DEATH(cache.bf16_keys(0, 0, 0), "kBf16");
  EXPECT_DEATH(cache.commit(9), "token_count");
}

}  // namespace
}  // namespace moraine::cpu

#include "cpu/latent_cache.h"

#include <gtest/gtest.h>

#include <bit>
#include <vector>

namespace moraine::cpu {
namespace {

TEST(LatentCache, RowsArePaddedToWhatAProductTakesAtATime) {
  EXPECT_EQ(latent_stride(CacheType::kF32, 576), 576);
  EXPECT_EQ(latent_stride(CacheType::kF32, 15), 16);
  EXPECT_EQ(latent_stride(CacheType::kBf16, 576), 576);
  EXPECT_EQ(latent_stride(CacheType::kBf16, 80), 96);
  EXPECT_EQ(latent_row_bytes(CacheType::kF32, 576), 2304);
  EXPECT_EQ(latent_row_bytes(CacheType::kBf16, 576), 1152);
}

TEST(LatentCache, TakesPagesAsTokensCome) {
  for (const CacheType type : {CacheType::kF32, CacheType::kBf16}) {
    LatentCache cache(3, 80, type);
    const auto page_bytes = static_cast<uint64_t>(3 * LatentCache::kPageTokens * latent_row_bytes(type, 80));
    EXPECT_EQ(cache.size_bytes(), 0u);
    EXPECT_EQ(cache.token_count(), 0);
    cache.reserve(1);
    EXPECT_EQ(cache.token_count(), 0);
    const uint64_t one = cache.size_bytes();
    EXPECT_GE(one, page_bytes);
    EXPECT_LT(one, page_bytes + 4096);
    cache.commit(1);
    cache.reserve(64);
    EXPECT_EQ(cache.size_bytes(), one);
    cache.reserve(65);
    EXPECT_EQ(cache.size_bytes(), 2 * one);
  }
}

/// Fifteen values that tell token and layer; bf16 numbers.
std::vector<float> row_values(int64_t layer, int64_t position) {
  std::vector<float> values(15, 1.0f);
  values[0] = static_cast<float>(layer);
  values[14] = static_cast<float>(position / 2);
  return values;
}

/// Value `i` of a token's row.
float value(const LatentCache& cache, int64_t layer, int64_t position, int64_t i) {
  const int64_t page = position / LatentCache::kPageTokens;
  const int64_t at = position % LatentCache::kPageTokens * cache.stride() + i;
  if (cache.type() == CacheType::kF32) return cache.f32_page(layer, page)[at];
  return std::bit_cast<float>(static_cast<uint32_t>(cache.bf16_page(layer, page)[at]) << 16);
}

TEST(LatentCache, RowsKeepTheirPlaceWhileItGrows) {
  for (const CacheType type : {CacheType::kF32, CacheType::kBf16}) {
    LatentCache cache(2, 15, type);
    cache.reserve(40);
    for (int64_t position = 0; position < 40; ++position) {
      for (int64_t layer = 0; layer < 2; ++layer) {
        cache.write(scalar_kernels(), layer, position, row_values(layer, position).data());
      }
    }
    cache.commit(40);
    cache.reserve(500);
    cache.write(scalar_kernels(), 1, 499, row_values(7, 498).data());
    for (int64_t position = 0; position < 40; ++position) {
      for (int64_t layer = 0; layer < 2; ++layer) {
        EXPECT_EQ(value(cache, layer, position, 0), static_cast<float>(layer));
        EXPECT_EQ(value(cache, layer, position, 14), static_cast<float>(position / 2));
        EXPECT_EQ(value(cache, layer, position, 15), 0.0f);
      }
    }
    EXPECT_EQ(value(cache, 1, 499, 0), 7.0f);
    EXPECT_EQ(value(cache, 1, 499, 14), 249.0f);
  }
}

TEST(LatentCache, RoundsToBf16AloneWhereItIsTold) {
  const std::vector<float> row(15, 1.0f + 0x1.8p-8f);
  LatentCache exact(1, 15, CacheType::kF32), rounded(1, 15, CacheType::kBf16);
  for (LatentCache* cache : {&exact, &rounded}) {
    cache->reserve(1);
    cache->write(scalar_kernels(), 0, 0, row.data());
  }
  EXPECT_EQ(value(exact, 0, 0, 3), 1.0f + 0x1.8p-8f);
  EXPECT_EQ(value(rounded, 0, 0, 3), 1.0f + 0x1p-7f);
}

TEST(LatentCache, TruncateForgetsTokensAndGivesPagesBack) {
  LatentCache cache(1, 15, CacheType::kF32);
  cache.reserve(200);
  cache.commit(200);
  const uint64_t four = cache.size_bytes();
  cache.write(scalar_kernels(), 0, 64, row_values(5, 64).data());
  cache.truncate(65);
  EXPECT_EQ(cache.token_count(), 65);
  EXPECT_EQ(cache.size_bytes(), four / 2);
  EXPECT_EQ(value(cache, 0, 64, 0), 5.0f);
  cache.truncate(64);
  EXPECT_EQ(cache.size_bytes(), four / 4);
  cache.truncate(0);
  EXPECT_EQ(cache.size_bytes(), 0u);
}

TEST(LatentCacheDeathTest, RefusesWhatIsNotThere) {
  LatentCache cache(1, 16, CacheType::kBf16);
  cache.reserve(10);
  cache.commit(10);
  EXPECT_DEATH(cache.truncate(11), "token_count");
  EXPECT_DEATH(cache.truncate(-1), "token_count");
  const std::vector<float> values(16);
  EXPECT_DEATH(cache.write(scalar_kernels(), 0, 64, values.data()), "pages");
  EXPECT_DEATH(cache.write(scalar_kernels(), 1, 0, values.data()), "layer");
  EXPECT_DEATH(cache.bf16_page(0, 1), "page_index");
  EXPECT_DEATH(cache.f32_page(0, 0), "type");
  EXPECT_DEATH(cache.commit(9), "token_count");
}

}  // namespace
}  // namespace moraine::cpu

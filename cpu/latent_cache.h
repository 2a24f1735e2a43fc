#pragma once

#include <cstdint>

#include "cpu/kernels.h"
#include "cpu/paged_cache.h"

namespace moraine::cpu {

/// Numbers from one cached token's row to the next for `width` values: padded with zeros to what the products take at a
/// time.
int64_t latent_stride(CacheType type, int64_t width);
/// Bytes of a cached token in one layer.
int64_t latent_row_bytes(CacheType type, int64_t width);

/// One sequence's latents: per token and layer kv_lora_rank normalised latent values and qk_rope_head_dim values of the
/// rotated key. A page is [layers, kPageTokens, stride].
class LatentCache final : public PagedCache {
 public:
  /// `width`: values per token and layer.
  LatentCache(int64_t layers, int64_t width, CacheType type);

  int64_t layers() const { return layers_; }
  int64_t width() const { return width_; }
  CacheType type() const { return type_; }
  /// Numbers from one token's row to the next, the padding zero.
  int64_t stride() const { return stride_; }

  /// Writes the row of a token with a page, whether counted yet or not: `width` values, rounded if the cache is bf16.
  void write(const KernelTable& kernels, int64_t layer, int64_t position, const float* values);
  /// First row of the page [kPageTokens, stride] with tokens kPageTokens · page_index and up. One for each type.
  const float* f32_page(int64_t layer, int64_t page_index) const;
  const Bf16* bf16_page(int64_t layer, int64_t page_index) const;

 private:
  /// Bytes before the layer's rows in a page.
  int64_t offset(int64_t layer) const;

  int64_t layers_;
  int64_t width_;
  CacheType type_;
  int64_t stride_;
  int64_t row_bytes_;
};

}  // namespace moraine::cpu

#pragma once

#include <cstdint>

#include "cpu/kernels.h"
#include "cpu/paged_cache.h"

namespace moraine::cpu {

/// Bytes of a cached token in one layer.
int64_t head_token_bytes(CacheType type, int64_t kv_heads, int64_t head_dim);

/// One sequence's keys and values of grouped-query attention. A page is [layers, kv heads, keys | values]; how a head's
/// keys and values of a page lie depends on the type, so that they are operands as they are:
/// f32 (for flash_block): keys 16 tokens beside each other [page/16, head_dim, 16], values in rows [page,
/// value_stride].
/// bf16 (for FlashBf16): keys in rows [page, key_stride], values as a Bf16Panel whose steps are the page's tokens
/// [value_stride/16, page/2, 16, 2].
class HeadCache final : public PagedCache {
 public:
  HeadCache(int64_t layers, int64_t kv_heads, int64_t head_dim, CacheType type);

  int64_t kv_heads() const { return kv_heads_; }
  int64_t head_dim() const { return head_dim_; }
  CacheType type() const { return type_; }
  /// Numbers of a key: head_dim, in bf16 rounded up to 32, the padding zero.
  int64_t key_stride() const { return key_stride_; }
  /// Numbers of a value: head_dim rounded up to 16, the padding zero.
  int64_t value_stride() const { return value_stride_; }

  /// Puts the key and the value of a token with a page, whether counted yet or not; rounded if the cache is bf16. Safe
  /// for different tokens or heads at the same time.
  void put(const KernelTable& kernels, int64_t layer, int64_t head, int64_t position, const float* key,
           const float* value) noexcept;

  /// Keys and values of the page with tokens kPageTokens · page_index and up. One pair for each type.
  const float* f32_keys(int64_t layer, int64_t head, int64_t page_index) const;
  const float* f32_values(int64_t layer, int64_t head, int64_t page_index) const;
  const Bf16* bf16_keys(int64_t layer, int64_t head, int64_t page_index) const;
  Bf16Panel bf16_values(int64_t layer, int64_t head, int64_t page_index) const;

 private:
  /// Numbers before the layer's head in a page.
  int64_t offset(int64_t layer, int64_t head) const;

  int64_t layers_;
  int64_t kv_heads_;
  int64_t head_dim_;
  CacheType type_;
  int64_t key_stride_;
  int64_t value_stride_;
};

}  // namespace moraine::cpu

#pragma once

#include <cstdint>

#include "cpu/paged_cache.h"

namespace moraine::cpu {

/// Bytes of a cached token in one layer.
int64_t head_token_bytes(int64_t kv_heads, int64_t head_dim);

/// One sequence's keys and values of grouped-query attention, f32. Per layer and kv head a page has its keys ready for
/// flash_block, 16 tokens beside each other [page/16, head_dim, 16], and its values in rows [page, value_stride]; a
/// page is [layers, kv heads, keys | values].
class HeadCache final : public PagedCache {
 public:
  HeadCache(int64_t layers, int64_t kv_heads, int64_t head_dim);

  int64_t kv_heads() const { return kv_heads_; }
  int64_t head_dim() const { return head_dim_; }
  /// Floats from one token's value to the next: head_dim rounded up to 16, the padding zero.
  int64_t value_stride() const { return value_stride_; }

  /// Puts the key and the value of a token with a page, whether counted yet or not. Safe for different tokens or heads
  /// at the same time.
  void put(int64_t layer, int64_t head, int64_t position, const float* key, const float* value) noexcept;
  /// Keys and values of the page with tokens kPageTokens · page_index and up.
  const float* keys(int64_t layer, int64_t head, int64_t page_index) const;
  const float* values(int64_t layer, int64_t head, int64_t page_index) const;

 private:
  /// Floats before the layer's head in a page.
  int64_t offset(int64_t layer, int64_t head) const;

  int64_t layers_;
  int64_t kv_heads_;
  int64_t head_dim_;
  int64_t value_stride_;
};

}  // namespace moraine::cpu

#pragma once

#include <cstdint>
#include <vector>

#include "quant/aligned_buffer.h"
#include "runtime/backend.h"

namespace moraine::cpu {

/// One sequence's keys and values of grouped-query attention, f32, in pages of 64 tokens that are taken when tokens
/// come. Per layer and kv head a page has its keys ready for flash_block, 16 tokens beside each other
/// [page/16, head_dim, 16], and its values in rows [page, value_stride].
class HeadCache final : public runtime::KvCache {
 public:
  static constexpr int64_t kPageTokens = 64;

  HeadCache(int64_t layers, int64_t kv_heads, int64_t head_dim);

  int64_t token_count() const override { return token_count_; }
  void truncate(int64_t token_count) override;
  uint64_t size_bytes() const override;

  int64_t kv_heads() const { return kv_heads_; }
  int64_t head_dim() const { return head_dim_; }
  /// Floats from one token's value to the next: head_dim rounded up to 16, the padding zero.
  int64_t value_stride() const { return value_stride_; }

  /// Makes the pages for tokens before `token_count`. Throws quant::Error(kNotEnough) and changes nothing.
  void reserve(int64_t token_count);
  /// Puts the key and the value of a token with a page, whether counted yet or not. Safe for different tokens or heads
  /// at the same time.
  void put(int64_t layer, int64_t head, int64_t position, const float* key, const float* value) noexcept;
  /// Keys and values of the page with tokens kPageTokens · page_index and up.
  const float* keys(int64_t layer, int64_t head, int64_t page_index) const;
  const float* values(int64_t layer, int64_t head, int64_t page_index) const;
  /// Counts the tokens before `token_count`, whose keys and values have been put in all layers.
  void commit(int64_t token_count);

 private:
  int64_t head_floats() const { return kPageTokens * (head_dim_ + value_stride_); }
  int64_t offset(int64_t layer, int64_t head) const { return (layer * kv_heads_ + head) * head_floats(); }

  int64_t layers_;
  int64_t kv_heads_;
  int64_t head_dim_;
  int64_t value_stride_;
  int64_t token_count_ = 0;
  std::vector<quant::AlignedBuffer> pages_;  // each [layers, kv heads, keys | values]
};

}  // namespace moraine::cpu

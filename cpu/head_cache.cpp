#include "cpu/head_cache.h"

#include <algorithm>

#include "cpu/kernels.h"
#include "quant/error.h"

namespace moraine::cpu {

int64_t head_token_bytes(int64_t kv_heads, int64_t head_dim) {
  return kv_heads * (head_dim + padded_to_lanes(head_dim)) * static_cast<int64_t>(sizeof(float));
}

HeadCache::HeadCache(int64_t layers, int64_t kv_heads, int64_t head_dim)
    : PagedCache(layers * kPageTokens * head_token_bytes(kv_heads, head_dim)),
      layers_(layers),
      kv_heads_(kv_heads),
      head_dim_(head_dim),
      value_stride_(padded_to_lanes(head_dim)) {
  MORAINE_CHECK(layers > 0 && kv_heads > 0 && head_dim > 0);
}

int64_t HeadCache::offset(int64_t layer, int64_t head) const {
  MORAINE_CHECK(layer >= 0 && layer < layers_ && head >= 0 && head < kv_heads_);
  return (layer * kv_heads_ + head) * kPageTokens * (head_dim_ + value_stride_);
}

void HeadCache::put(int64_t layer, int64_t head, int64_t position, const float* key, const float* value) noexcept {
  MORAINE_CHECK(position >= 0);
  auto* base = reinterpret_cast<float*>(page(position / kPageTokens)) + offset(layer, head);
  const int64_t token = position % kPageTokens;
  float* lane = base + token / kLanes * head_dim_ * kLanes + token % kLanes;
  for (int64_t c = 0; c < head_dim_; ++c) lane[c * kLanes] = key[c];
  std::copy_n(value, head_dim_, base + kPageTokens * head_dim_ + token * value_stride_);
}

const float* HeadCache::keys(int64_t layer, int64_t head, int64_t page_index) const {
  return reinterpret_cast<const float*>(page(page_index)) + offset(layer, head);
}

const float* HeadCache::values(int64_t layer, int64_t head, int64_t page_index) const {
  return keys(layer, head, page_index) + kPageTokens * head_dim_;
}

}  // namespace moraine::cpu

#include "cpu/head_cache.h"

#include <algorithm>

#include "quant/error.h"

namespace moraine::cpu {
namespace {

constexpr int64_t kPage = PagedCache::kPageTokens;
static_assert(kPage % kBf16Steps == 0);

int64_t key_numbers(CacheType type, int64_t head_dim) {
  return type == CacheType::kBf16 ? (head_dim + kBf16Steps - 1) / kBf16Steps * kBf16Steps : head_dim;
}

/// A value to its place among the steps of a Bf16Panel whose group is a page of tokens.
void put_paired(const KernelTable& kernels, const float* value, int64_t count, int64_t token, Bf16* panel) noexcept {
  Bf16* lane = panel + token / 2 * 2 * kLanes + token % 2;
  for (int64_t first = 0; first < count; first += kLanes) {
    Bf16 rounded[kLanes];
    const int64_t present = std::min(kLanes, count - first);
    kernels.bf16.round(value + first, present, rounded);
    for (int64_t i = 0; i < present; ++i) lane[first * kPage + 2 * i] = rounded[i];
  }
}

}  // namespace

int64_t head_token_bytes(CacheType type, int64_t kv_heads, int64_t head_dim) {
  const auto number_bytes = static_cast<int64_t>(type == CacheType::kBf16 ? sizeof(Bf16) : sizeof(float));
  return kv_heads * (key_numbers(type, head_dim) + padded_to_lanes(head_dim)) * number_bytes;
}

HeadCache::HeadCache(int64_t layers, int64_t kv_heads, int64_t head_dim, CacheType type)
    : PagedCache(layers * kPage * head_token_bytes(type, kv_heads, head_dim)),
      layers_(layers),
      kv_heads_(kv_heads),
      head_dim_(head_dim),
      type_(type),
      key_stride_(key_numbers(type, head_dim)),
      value_stride_(padded_to_lanes(head_dim)) {
  MORAINE_CHECK(layers > 0 && kv_heads > 0 && head_dim > 0);
}

int64_t HeadCache::offset(int64_t layer, int64_t head) const {
  MORAINE_CHECK(layer >= 0 && layer < layers_ && head >= 0 && head < kv_heads_);
  return (layer * kv_heads_ + head) * kPage * (key_stride_ + value_stride_);
}

void HeadCache::put(const KernelTable& kernels, int64_t layer, int64_t head, int64_t position, const float* key,
                    const float* value) noexcept {
  MORAINE_CHECK(position >= 0);
  std::byte* memory = page(position / kPage);
  const int64_t token = position % kPage;
  if (type_ == CacheType::kBf16) {
    Bf16* base = reinterpret_cast<Bf16*>(memory) + offset(layer, head);
    kernels.bf16.round(key, head_dim_, base + token * key_stride_);
    put_paired(kernels, value, head_dim_, token, base + kPage * key_stride_);
    return;
  }
  float* base = reinterpret_cast<float*>(memory) + offset(layer, head);
  float* lane = base + token / kLanes * head_dim_ * kLanes + token % kLanes;
  for (int64_t c = 0; c < head_dim_; ++c) lane[c * kLanes] = key[c];
  std::copy_n(value, head_dim_, base + kPage * head_dim_ + token * value_stride_);
}

const float* HeadCache::f32_keys(int64_t layer, int64_t head, int64_t page_index) const {
  MORAINE_CHECK(type_ == CacheType::kF32);
  return reinterpret_cast<const float*>(page(page_index)) + offset(layer, head);
}

const float* HeadCache::f32_values(int64_t layer, int64_t head, int64_t page_index) const {
  return f32_keys(layer, head, page_index) + kPage * key_stride_;
}

const Bf16* HeadCache::bf16_keys(int64_t layer, int64_t head, int64_t page_index) const {
  MORAINE_CHECK(type_ == CacheType::kBf16);
  return reinterpret_cast<const Bf16*>(page(page_index)) + offset(layer, head);
}

Bf16Panel HeadCache::bf16_values(int64_t layer, int64_t head, int64_t page_index) const {
  return {.data = bf16_keys(layer, head, page_index) + kPage * key_stride_,
          .group_stride = kPage * kLanes,
          .group_count = value_stride_ / kLanes};
}

}  // namespace moraine::cpu

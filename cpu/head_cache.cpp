#include "cpu/head_cache.h"

#include <algorithm>

#include "cpu/kernels.h"
#include "quant/error.h"

namespace moraine::cpu {
namespace {

int64_t pages_for(int64_t token_count) {
  return (token_count + HeadCache::kPageTokens - 1) / HeadCache::kPageTokens;
}

}  // namespace

HeadCache::HeadCache(int64_t layers, int64_t kv_heads, int64_t head_dim)
    : layers_(layers),
      kv_heads_(kv_heads),
      head_dim_(head_dim),
      value_stride_((head_dim + kLanes - 1) / kLanes * kLanes) {
  MORAINE_CHECK(layers > 0 && kv_heads > 0 && head_dim > 0);
}

void HeadCache::truncate(int64_t token_count) {
  MORAINE_CHECK(token_count >= 0 && token_count <= token_count_);
  token_count_ = token_count;
  pages_.resize(static_cast<size_t>(pages_for(token_count)));
}

uint64_t HeadCache::size_bytes() const {
  uint64_t bytes = 0;
  for (const quant::AlignedBuffer& page : pages_) bytes += page.size();
  return bytes;
}

void HeadCache::reserve(int64_t token_count) {
  const size_t before = pages_.size();
  const auto page_bytes = static_cast<uint64_t>(layers_ * kv_heads_ * head_floats()) * sizeof(float);
  try {
    while (pages_.size() < static_cast<size_t>(pages_for(token_count))) pages_.emplace_back(page_bytes);
  } catch (...) {
    pages_.resize(before);
    throw;
  }
}

void HeadCache::put(int64_t layer, int64_t head, int64_t position, const float* key, const float* value) noexcept {
  MORAINE_CHECK(layer >= 0 && layer < layers_ && head >= 0 && head < kv_heads_ && position >= 0 &&
                pages_for(position + 1) <= std::ssize(pages_));
  auto* base =
      reinterpret_cast<float*>(pages_[static_cast<size_t>(position / kPageTokens)].data()) + offset(layer, head);
  const int64_t token = position % kPageTokens;
  float* lane = base + token / kLanes * head_dim_ * kLanes + token % kLanes;
  for (int64_t c = 0; c < head_dim_; ++c) lane[c * kLanes] = key[c];
  std::copy_n(value, head_dim_, base + kPageTokens * head_dim_ + token * value_stride_);
}

const float* HeadCache::keys(int64_t layer, int64_t head, int64_t page_index) const {
  MORAINE_CHECK(layer >= 0 && layer < layers_ && head >= 0 && head < kv_heads_ && page_index >= 0 &&
                page_index < std::ssize(pages_));
  return reinterpret_cast<const float*>(pages_[static_cast<size_t>(page_index)].data()) + offset(layer, head);
}

const float* HeadCache::values(int64_t layer, int64_t head, int64_t page_index) const {
  return keys(layer, head, page_index) + kPageTokens * head_dim_;
}

void HeadCache::commit(int64_t token_count) {
  MORAINE_CHECK(token_count >= token_count_ && pages_for(token_count) <= std::ssize(pages_));
  token_count_ = token_count;
}

}  // namespace moraine::cpu

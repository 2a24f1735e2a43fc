#include "cpu/latent_cache.h"

#include <algorithm>

#include "quant/error.h"

namespace moraine::cpu {
namespace {

int64_t pages_for(int64_t token_count) {
  return (token_count + LatentCache::kPageTokens - 1) / LatentCache::kPageTokens;
}

int64_t number_bytes(LatentType type) {
  return type == LatentType::kBf16 ? int64_t{sizeof(Bf16)} : int64_t{sizeof(float)};
}

}  // namespace

int64_t latent_stride(LatentType type, int64_t width) {
  const int64_t multiple = type == LatentType::kBf16 ? kBf16Steps : kLanes;
  return (width + multiple - 1) / multiple * multiple;
}

int64_t latent_row_bytes(LatentType type, int64_t width) {
  return latent_stride(type, width) * number_bytes(type);
}

LatentCache::LatentCache(int64_t layers, int64_t width, LatentType type)
    : layers_(layers),
      width_(width),
      type_(type),
      stride_(latent_stride(type, width)),
      row_bytes_(latent_row_bytes(type, width)) {
  MORAINE_CHECK(layers > 0 && width > 0);
}

void LatentCache::truncate(int64_t token_count) {
  MORAINE_CHECK(token_count >= 0 && token_count <= token_count_);
  token_count_ = token_count;
  pages_.resize(static_cast<size_t>(pages_for(token_count)));
}

uint64_t LatentCache::size_bytes() const {
  uint64_t bytes = 0;
  for (const quant::AlignedBuffer& page : pages_) bytes += page.size();
  return bytes;
}

void LatentCache::reserve(int64_t token_count) {
  const size_t before = pages_.size();
  const auto page_bytes = static_cast<uint64_t>(layers_ * kPageTokens * row_bytes_);
  try {
    while (pages_.size() < static_cast<size_t>(pages_for(token_count))) pages_.emplace_back(page_bytes);
  } catch (...) {
    pages_.resize(before);
    throw;
  }
}

std::byte* LatentCache::row(int64_t layer, int64_t position) {
  MORAINE_CHECK(layer >= 0 && layer < layers_ && position >= 0 && pages_for(position + 1) <= std::ssize(pages_));
  return pages_[static_cast<size_t>(position / kPageTokens)].data() +
         (layer * kPageTokens + position % kPageTokens) * row_bytes_;
}

void LatentCache::write(const KernelTable& kernels, int64_t layer, int64_t position, const float* values) {
  std::byte* to = row(layer, position);
  if (type_ == LatentType::kBf16) {
    kernels.bf16.round(values, width_, reinterpret_cast<Bf16*>(to));
  } else {
    std::copy_n(values, width_, reinterpret_cast<float*>(to));
  }
}

const std::byte* LatentCache::page(LatentType type, int64_t layer, int64_t page_index) const {
  MORAINE_CHECK(type == type_ && layer >= 0 && layer < layers_);
  MORAINE_CHECK(page_index >= 0 && page_index < std::ssize(pages_));
  return pages_[static_cast<size_t>(page_index)].data() + layer * kPageTokens * row_bytes_;
}

const float* LatentCache::f32_page(int64_t layer, int64_t page_index) const {
  return reinterpret_cast<const float*>(page(LatentType::kF32, layer, page_index));
}

const Bf16* LatentCache::bf16_page(int64_t layer, int64_t page_index) const {
  return reinterpret_cast<const Bf16*>(page(LatentType::kBf16, layer, page_index));
}

void LatentCache::commit(int64_t token_count) {
  MORAINE_CHECK(token_count >= token_count_ && pages_for(token_count) <= std::ssize(pages_));
  token_count_ = token_count;
}

}  // namespace moraine::cpu

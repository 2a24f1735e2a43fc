#include "cpu/latent_cache.h"

#include "cpu/kernels.h"
#include "quant/error.h"

namespace moraine::cpu {
namespace {

int64_t pages_for(int64_t token_count) {
  return (token_count + LatentCache::kPageTokens - 1) / LatentCache::kPageTokens;
}

}  // namespace

LatentCache::LatentCache(int64_t layers, int64_t width)
    : layers_(layers), width_(width), stride_((width + kLanes - 1) / kLanes * kLanes) {
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
  const auto page_bytes = static_cast<uint64_t>(layers_ * kPageTokens * stride_) * sizeof(float);
  try {
    while (pages_.size() < static_cast<size_t>(pages_for(token_count))) pages_.emplace_back(page_bytes);
  } catch (...) {
    pages_.resize(before);
    throw;
  }
}

float* LatentCache::row(int64_t layer, int64_t position) {
  MORAINE_CHECK(layer >= 0 && layer < layers_ && position >= 0 && pages_for(position + 1) <= std::ssize(pages_));
  auto* page = reinterpret_cast<float*>(pages_[static_cast<size_t>(position / kPageTokens)].data());
  return page + (layer * kPageTokens + position % kPageTokens) * stride_;
}

const float* LatentCache::page(int64_t layer, int64_t page_index) const {
  MORAINE_CHECK(layer >= 0 && layer < layers_ && page_index >= 0 && page_index < std::ssize(pages_));
  return reinterpret_cast<const float*>(pages_[static_cast<size_t>(page_index)].data()) + layer * kPageTokens * stride_;
}

void LatentCache::commit(int64_t token_count) {
  MORAINE_CHECK(token_count >= token_count_ && pages_for(token_count) <= std::ssize(pages_));
  token_count_ = token_count;
}

}  // namespace moraine::cpu

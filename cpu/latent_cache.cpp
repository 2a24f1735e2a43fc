#include "cpu/latent_cache.h"

#include <algorithm>

#include "quant/error.h"

namespace moraine::cpu {
namespace {

int64_t number_bytes(CacheType type) {
  return type == CacheType::kBf16 ? int64_t{sizeof(Bf16)} : int64_t{sizeof(float)};
}

}  // namespace

int64_t latent_stride(CacheType type, int64_t width) {
  const int64_t multiple = type == CacheType::kBf16 ? kBf16Steps : kLanes;
  return (width + multiple - 1) / multiple * multiple;
}

int64_t latent_row_bytes(CacheType type, int64_t width) {
  return latent_stride(type, width) * number_bytes(type);
}

LatentCache::LatentCache(int64_t layers, int64_t width, CacheType type)
    : PagedCache(layers * kPageTokens * latent_row_bytes(type, width)),
      layers_(layers),
      width_(width),
      type_(type),
      stride_(latent_stride(type, width)),
      row_bytes_(latent_row_bytes(type, width)) {
  MORAINE_CHECK(layers > 0 && width > 0);
}

int64_t LatentCache::offset(int64_t layer) const {
  MORAINE_CHECK(layer >= 0 && layer < layers_);
  return layer * kPageTokens * row_bytes_;
}

void LatentCache::write(const KernelTable& kernels, int64_t layer, int64_t position, const float* values) {
  MORAINE_CHECK(position >= 0);
  std::byte* to = page(position / kPageTokens) + offset(layer) + position % kPageTokens * row_bytes_;
  if (type_ == CacheType::kBf16) {
    kernels.bf16.round(values, width_, reinterpret_cast<Bf16*>(to));
  } else {
    std::copy_n(values, width_, reinterpret_cast<float*>(to));
  }
}

const float* LatentCache::f32_page(int64_t layer, int64_t page_index) const {
  MORAINE_CHECK(type_ == CacheType::kF32);
  return reinterpret_cast<const float*>(page(page_index) + offset(layer));
}

const Bf16* LatentCache::bf16_page(int64_t layer, int64_t page_index) const {
  MORAINE_CHECK(type_ == CacheType::kBf16);
  return reinterpret_cast<const Bf16*>(page(page_index) + offset(layer));
}

}  // namespace moraine::cpu

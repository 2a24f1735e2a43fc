#include "cpu/kernels_amx_bf16.h"

#include <immintrin.h>

#include "cpu/kernels_amx_tiles.h"

namespace moraine::cpu {
namespace {

constexpr int64_t kTileColumns = 16;

/// Up to 2 × 2 tiles of sums in registers 0 … 3; operands pass through 4 … 7.
template <int kRowTiles, int kGroups>
void multiply_tiles(const Bf16* a, int64_t a_stride, const Bf16* b, int64_t group_stride, int64_t k_count,
                    bool continued, float* c, int64_t c_stride) noexcept {
  const auto a_bytes = static_cast<size_t>(a_stride) * sizeof(Bf16);
  const auto c_bytes = static_cast<size_t>(c_stride) * sizeof(float);
  const int64_t lower_a = kTileRows * a_stride, lower_c = kTileRows * c_stride;
  if (continued) {
    _tile_loadd(0, c, c_bytes);
    if constexpr (kGroups > 1) _tile_loadd(1, c + kTileColumns, c_bytes);
    if constexpr (kRowTiles > 1) _tile_loadd(2, c + lower_c, c_bytes);
    if constexpr (kRowTiles > 1 && kGroups > 1) _tile_loadd(3, c + lower_c + kTileColumns, c_bytes);
  } else {
    _tile_zero(0);
    if constexpr (kGroups > 1) _tile_zero(1);
    if constexpr (kRowTiles > 1) _tile_zero(2);
    if constexpr (kRowTiles > 1 && kGroups > 1) _tile_zero(3);
  }
  for (int64_t k = 0; k < k_count; k += kBf16Steps) {
    _tile_loadd(6, b + k * kTileColumns, kTileRowBytes);
    _tile_loadd(4, a + k, a_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kGroups > 1) {
      _tile_loadd(7, b + group_stride + k * kTileColumns, kTileRowBytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kRowTiles > 1) {
      _tile_loadd(5, a + lower_a + k, a_bytes);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (kRowTiles > 1 && kGroups > 1) _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c, c_bytes);
  if constexpr (kGroups > 1) _tile_stored(1, c + kTileColumns, c_bytes);
  if constexpr (kRowTiles > 1) _tile_stored(2, c + lower_c, c_bytes);
  if constexpr (kRowTiles > 1 && kGroups > 1) _tile_stored(3, c + lower_c + kTileColumns, c_bytes);
}

/// All columns for one or two tiles of rows.
template <int kRowTiles>
void multiply_rows(const Bf16* a, int64_t a_stride, const Bf16Panel& b, int64_t k_count, bool continued, float* c,
                   int64_t c_stride) noexcept {
  int64_t g = 0;
  for (; g + 2 <= b.group_count; g += 2) {
    multiply_tiles<kRowTiles, 2>(a, a_stride, b.data + g * b.group_stride, b.group_stride, k_count, continued,
                                 c + g * kTileColumns, c_stride);
  }
  if (g < b.group_count) {
    multiply_tiles<kRowTiles, 1>(a, a_stride, b.data + g * b.group_stride, b.group_stride, k_count, continued,
                                 c + g * kTileColumns, c_stride);
  }
}

}  // namespace

void amx_bf16_multiply(const Bf16* a, int64_t a_stride, int64_t row_count, const Bf16Panel& b, int64_t k_count,
                       bool continued, float* c, int64_t c_stride) noexcept {
  int64_t m = 0;
  for (; m + 2 * kTileRows <= row_count; m += 2 * kTileRows) {
    multiply_rows<2>(a + m * a_stride, a_stride, b, k_count, continued, c + m * c_stride, c_stride);
  }
  if (m < row_count) multiply_rows<1>(a + m * a_stride, a_stride, b, k_count, continued, c + m * c_stride, c_stride);
}

}  // namespace moraine::cpu

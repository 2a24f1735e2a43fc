#pragma once

#include <cstdint>

#include "quant/grid_formats.h"
#include "quant/iq_grids.h"

/// The weights of the grid formats as the kernels see them: weight = grid_scale() · byte of grid_octet(), the product
/// exact. These functions are compiled into code for several instruction sets, so each must be inlined where it is
/// called.
namespace moraine::quant {

namespace grid_detail {

[[gnu::always_inline]] inline uint32_t number(const uint8_t bytes[4]) {
  uint32_t value;
  __builtin_memcpy(&value, bytes, 4);
  return value;
}

/// Nibble `i` of consecutive bytes, low ones first.
[[gnu::always_inline]] inline unsigned nibble(const uint8_t* bytes, int i) {
  return (bytes[i / 2] >> (4 * (i % 2))) & 15u;
}

/// Bytes of `values` (none of them 0) negated where the bit of `signs` is set.
[[gnu::always_inline]] inline uint64_t with_signs(uint64_t values, unsigned signs) {
  const uint64_t mask = kSignMasks.rows[signs];
  return (values ^ mask) + (mask & 0x0101010101010101u);
}

[[gnu::always_inline]] inline uint64_t quads(uint32_t first, uint32_t second) {
  return first | static_cast<uint64_t>(second) << 32;
}

}  // namespace grid_detail

/// Weights 8·octet … 8·octet + 7 as int8, the first in the lowest byte.
[[gnu::always_inline]] inline uint64_t grid_octet(const BlockIQ3_XXS& block, int octet) {
  const uint32_t bits = grid_detail::number(block.signs_scale[octet / 4]);
  const uint64_t values =
      grid_detail::quads(kIq3XxsGrid.rows[block.rows[2 * octet]], kIq3XxsGrid.rows[block.rows[2 * octet + 1]]);
  return grid_detail::with_signs(values, kEvenSigns.rows[(bits >> (7 * (octet % 4))) & 127]);
}

[[gnu::always_inline]] inline uint64_t grid_octet(const BlockIQ3_S& block, int octet) {
  const unsigned high = block.rows_high[octet / 4] >> (2 * (octet % 4));
  const uint64_t values = grid_detail::quads(kIq3SGrid.rows[block.rows[2 * octet] | (high & 1) << 8],
                                             kIq3SGrid.rows[block.rows[2 * octet + 1] | (high >> 1 & 1) << 8]);
  return grid_detail::with_signs(values, block.signs[octet]);
}

[[gnu::always_inline]] inline uint64_t grid_octet(const BlockIQ2_XXS& block, int octet) {
  const BlockIQ2_XXS::Group& group = block.groups[octet / 4];
  const uint32_t bits = grid_detail::number(group.signs_scale);
  return grid_detail::with_signs(kIq2XxsGrid.rows[group.rows[octet % 4]],
                                 kEvenSigns.rows[(bits >> (7 * (octet % 4))) & 127]);
}

[[gnu::always_inline]] inline uint64_t grid_octet(const BlockIQ2_XS& block, int octet) {
  const unsigned bits = block.rows_signs[octet];
  return grid_detail::with_signs(kIq2XsGrid.rows[bits & 511], kEvenSigns.rows[bits >> 9]);
}

[[gnu::always_inline]] inline uint64_t grid_octet(const BlockIQ2_S& block, int octet) {
  const unsigned high = (block.rows_high[octet / 4] >> (2 * (octet % 4))) & 3u;
  return grid_detail::with_signs(kIq2SGrid.rows[block.rows[octet] | high << 8], block.signs[octet]);
}

/// 8 · (grid value ± 1/8), from −9 to 9: bytes of the grid are −1, 0 or 1.
[[gnu::always_inline]] inline uint64_t iq1_values(uint64_t row, bool minus) {
  // Every byte 8·(value + 1), 0 … 16, then 7 or 9 less: no byte borrows from the next once 128 is added.
  constexpr uint64_t kOnes = 0x0101010101010101u;
  const uint64_t up = ((row ^ 0x80 * kOnes) + kOnes) ^ 0x80 * kOnes;  // value + 1, byte by byte
  return ((up * 8 + 0x80 * kOnes) - (minus ? 9 : 7) * kOnes) ^ 0x80 * kOnes;
}

[[gnu::always_inline]] inline uint64_t grid_octet(const BlockIQ1_S& block, int octet) {
  const unsigned bits = block.rows_high_scale[octet / 4];
  return iq1_values(kIq1SGrid.rows[block.rows[octet] | ((bits >> (3 * (octet % 4))) & 7) << 8], (bits & 0x8000) != 0);
}

[[gnu::always_inline]] inline uint64_t grid_octet(const BlockIQ1_M& block, int octet) {
  const unsigned high = grid_detail::nibble(block.rows_high, octet);
  return iq1_values(kIq1SGrid.rows[block.rows[octet] | (high & 7) << 8], (high & 8) != 0);
}

/// The block's d as f16 bits.
template <typename Block>
[[gnu::always_inline]] inline uint16_t grid_d(const Block& block) {
  if constexpr (requires { block.d; }) {
    return block.d;
  } else {
    return static_cast<uint16_t>((block.scales[0] >> 12) | ((block.scales[1] >> 12) << 4) |
                                 ((block.scales[2] >> 12) << 8) | ((block.scales[3] >> 12) << 12));
  }
}

/// The scale of weights 16·sixteen … 16·sixteen + 15, given d as f32.
[[gnu::always_inline]] inline float grid_scale(const BlockIQ3_XXS& block, float d, int sixteen) {
  return d * (0.5f + static_cast<float>(grid_detail::number(block.signs_scale[sixteen / 2]) >> 28)) * 0.5f;
}
[[gnu::always_inline]] inline float grid_scale(const BlockIQ3_S& block, float d, int sixteen) {
  return d * static_cast<float>(1 + 2 * grid_detail::nibble(block.scales, sixteen / 2));
}
[[gnu::always_inline]] inline float grid_scale(const BlockIQ2_XXS& block, float d, int sixteen) {
  return d * (0.5f + static_cast<float>(grid_detail::number(block.groups[sixteen / 2].signs_scale) >> 28)) * 0.25f;
}
[[gnu::always_inline]] inline float grid_scale(const BlockIQ2_XS& block, float d, int sixteen) {
  return d * (0.5f + static_cast<float>(grid_detail::nibble(block.scales, sixteen))) * 0.25f;
}
[[gnu::always_inline]] inline float grid_scale(const BlockIQ2_S& block, float d, int sixteen) {
  return d * (0.5f + static_cast<float>(grid_detail::nibble(block.scales, sixteen))) * 0.25f;
}
[[gnu::always_inline]] inline float grid_scale(const BlockIQ1_S& block, float d, int sixteen) {
  return d * static_cast<float>(2 * ((block.rows_high_scale[sixteen / 2] >> 12) & 7) + 1) * 0.125f;
}
[[gnu::always_inline]] inline float grid_scale(const BlockIQ1_M& block, float d, int sixteen) {
  return d * static_cast<float>(2 * ((block.scales[sixteen / 4] >> (3 * (sixteen % 4))) & 7) + 1) * 0.125f;
}

/// Whether halves of 32 weights have scales of their own.
template <typename Block>
constexpr bool kHasSixteenScales =
    std::same_as<Block, BlockIQ2_XS> || std::same_as<Block, BlockIQ2_S> || std::same_as<Block, BlockIQ1_M>;

}  // namespace moraine::quant

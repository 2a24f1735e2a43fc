#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "quant/block_formats.h"
#include "quant/dequantize.h"
#include "quant/dtype.h"
#include "quant/grid_formats.h"

namespace moraine::quant {

/// A number of the block that is finite if and only if all its weights are: the scale or minimum that is not, if there
/// is one. Nothing else in a block can make a weight that is no number.
template <typename Block>
float witness(const Block& block) {
  const float d = f32_from_f16(block.d);
  if (!std::isfinite(d)) return d;
  if constexpr (requires { block.dmin; }) return f32_from_f16(block.dmin);
  if constexpr (requires { block.m; }) return f32_from_f16(block.m);
  return d;
}
inline float witness(const BlockIQ1_M& block) {
  return f32_from_f16(iq1_m_d(block));
}

/// Byte offset of the first block of a block format whose scale or minimum is NaN or infinite, and with it all weights
/// of the block; -1 if there is none. `blocks` are whole blocks of `type` (Q8_0, Q4_K, IQ2_XS, …).
int64_t first_bad_block(DType type, std::span<const std::byte> blocks);

}  // namespace moraine::quant

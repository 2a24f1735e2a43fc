#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "quant/dtype.h"

namespace moraine::quant {

/// Bytes of a row-major row of `cols` values; cols must be a multiple of the block.
uint64_t row_bytes(DType type, int64_t cols);

/// f32 values → blocks of `type` (F32, F16, BF16 and the block formats from Q8_0 to IQ4_XS), round to nearest even
/// where plain. The block formats minimise squared error (least-squares searches over scales). `values.size()` must be
/// a multiple of block_elements(type) and `out` hold row_bytes(). Throws Error(kBadFile) if a value is not finite or
/// too large for the type, Error(kUsage) for the grid formats, which can only be read.
void quantize_row(DType type, std::span<const float> values, std::span<std::byte> out);

}  // namespace moraine::quant

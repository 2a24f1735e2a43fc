#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "quant/dtype.h"

namespace moraine::quant {

/// Bytes of a row-major row of `cols` values; cols must be a multiple of the block.
uint64_t row_bytes(DType type, int64_t cols);

/// f32 values → blocks of `type` (F32, F16, BF16, Q8_0, Q4_0, Q4_K), round to nearest even where plain. The block
/// formats minimise squared error (Q4_0, Q4_K: least-squares search over scales). `values.size()` must be a multiple of
/// block_elements(type) and `out` hold row_bytes(). Throws Error(kBadFile) if a value is not finite or too large for
/// the type.
void quantize_row(DType type, std::span<const float> values, std::span<std::byte> out);

}  // namespace moraine::quant

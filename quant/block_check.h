#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "quant/dtype.h"

namespace moraine::quant {

/// Byte offset of the first block of a block format whose scale or minimum is NaN or infinite, and with it all weights
/// of the block; -1 if there is none. Nothing else in a block can make a weight that is no number. `blocks` are whole
/// blocks of `type` (Q8_0, Q4_K, IQ2_XS, …).
int64_t first_bad_block(DType type, std::span<const std::byte> blocks);

}  // namespace moraine::quant

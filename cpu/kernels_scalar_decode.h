#pragma once

#include "cpu/kernels.h"
#include "quant/block_formats.h"
#include "quant/grid_formats.h"

namespace moraine::cpu {

/// A DecodeKernel for every block format (instantiated for all of them), for any x86-64: the definition.
template <class Block>
void scalar_decode(const PackedGroup& group, int64_t first_col, int64_t col_count, float* out) noexcept;

}  // namespace moraine::cpu

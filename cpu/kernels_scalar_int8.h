#pragma once

#include "cpu/kernels.h"

namespace moraine::cpu {

/// The definitions of the functions of the same names in KernelTable.
void scalar_quantize_activations(const float* x, const Int8Rows& rows, int64_t row) noexcept;

/// Int8Format::stream of a block format, for any number of rows; instantiated for all formats.
template <class Block>
void scalar_int8(const PackedGroups& groups, const Int8Rows& x, float* out, int64_t out_stride) noexcept;

/// The AbsorbKernel of a block format, instantiated for Q8_0, Q4_0 and Q4_K.
template <class Block>
void scalar_absorb(const PackedGroups& groups, const float* x, std::byte* scratch, float* out) noexcept;

}  // namespace moraine::cpu

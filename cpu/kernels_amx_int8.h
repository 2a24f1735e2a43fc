#pragma once

#include "cpu/kernels.h"

namespace moraine::cpu {

/// Int8Multiply with TDPBSSD and TDPBSUD on panels of Int8Format::unpack_limbs, after amx_begin().
void amx_int8_multiply(const std::byte* panels, int64_t group_count, const Int8Rows& rows, int64_t group,
                       const PanelAhead& ahead, float* acc, int64_t acc_stride) noexcept;

/// The same for formats with Int8Format::minima.
void amx_int8_multiply_minima(const std::byte* panels, int64_t group_count, const Int8Rows& rows, int64_t group,
                              const PanelAhead& ahead, float* acc, int64_t acc_stride) noexcept;

}  // namespace moraine::cpu

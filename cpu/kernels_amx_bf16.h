#pragma once

#include "cpu/kernels.h"

namespace moraine::cpu {

/// Bf16Kernels::multiply on AMX tiles, after amx_begin().
void amx_bf16_multiply(const Bf16* a, int64_t a_stride, int64_t row_count, const Bf16Panel& b, int64_t k_count,
                       bool continued, float* c, int64_t c_stride) noexcept;

}  // namespace moraine::cpu

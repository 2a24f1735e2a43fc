#pragma once

#include "cpu/kernels.h"

namespace moraine::cpu {

/// The definitions of the functions of the same names in Bf16Kernels.
void scalar_bf16_round(const float* x, int64_t n, Bf16* out) noexcept;
void scalar_bf16_pair_rows(const Bf16* rows, int64_t row_stride, int64_t row_count, int64_t group_count, Bf16* out,
                           int64_t group_stride) noexcept;
void scalar_bf16_pair_f32_rows(const float* rows, int64_t row_stride, int64_t row_count, int64_t group_count, Bf16* out,
                               int64_t group_stride) noexcept;
void scalar_bf16_multiply(const Bf16* a, int64_t a_stride, int64_t row_count, const Bf16Panel& b, int64_t k_count,
                          bool continued, float* c, int64_t c_stride) noexcept;
void scalar_bf16_rescale(float* x, int64_t n, float factor) noexcept;
void scalar_bf16_softmax(const Bf16Scores& block) noexcept;

}  // namespace moraine::cpu

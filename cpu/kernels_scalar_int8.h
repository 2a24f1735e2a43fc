#pragma once

#include "cpu/kernels.h"

namespace moraine::cpu {

/// The definitions of the functions of the same names in KernelTable.
void scalar_quantize_activations(const float* x, int64_t cols, ActivationBlock* blocks) noexcept;
void scalar_int8_q8_0(const PackedGroups& groups, const ActivationBlock* const* x, int64_t token_count,
                      std::byte* panel, float* out, int64_t out_stride) noexcept;
void scalar_int8_q4_0(const PackedGroups& groups, const ActivationBlock* const* x, int64_t token_count,
                      std::byte* panel, float* out, int64_t out_stride) noexcept;
void scalar_int8_q4_k(const PackedGroups& groups, const ActivationBlock* const* x, int64_t token_count,
                      std::byte* panel, float* out, int64_t out_stride) noexcept;

}  // namespace moraine::cpu

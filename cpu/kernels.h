#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/kernels_bf16.h"

namespace moraine::cpu {

/// Rows (or cached tokens, or columns) that one vector operation covers; equals quant::kRowGroup.
constexpr int64_t kLanes = 16;

/// `count` rounded up to whole vectors.
constexpr int64_t padded_to_lanes(int64_t count) {
  return (count + kLanes - 1) / kLanes * kLanes;
}

/// One group of 16 interleaved rows of a packed matrix (quant/packed_matrix.h).
struct PackedGroup {
  const std::byte* data = nullptr;    // the group's bytes
  int64_t cols = 0;                   // of the whole matrix
  const float* fp8_scales = nullptr;  // [ceil(cols/128)] block scales of these rows; F8_E4M3 only
};

/// Consecutive groups of a packed matrix in a block format: whole rows, one group after the other.
struct PackedGroups {
  const std::byte* data = nullptr;
  int64_t group_bytes = 0;
  int64_t group_count = 0;
  int64_t cols = 0;  // a multiple of 32
};

/// Activations that share one scale.
constexpr int64_t kActivationBlock = 32;
/// An int32 sum of products that starts at these bits is, read as f32, the sum plus 1.5·2^23 exactly (|sum| < 2^22).
constexpr int32_t kSumBias = 0x4b400000;
constexpr float kSumBiasValue = 0x1.8p+23f;

/// 32 activations of a row as int8: x[i] ≈ scale · q[i], with what the kernels need ready at hand. See
/// KernelTable::quantize_activations.
struct alignas(64) ActivationBlock {
  int8_t q[kActivationBlock];  ///< −127 … 127
  float scale;                 ///< max|x| / 127; 0 if all are zero, NaN if one is not finite
  float scaled_sum;            ///< scale · f32(Σ q)
  int32_t start_q4_0;  ///< kSumBias − 8·Σ q: where a sum over codes 0 … 15 starts that stand for −8 … 7
  int32_t start_q8_0;  ///< kSumBias − 128·Σ q: where a sum over q + 128 starts
  float half_scaled_sums[2];  ///< scale · f32(Σ q) over the first and the second 16
  int32_t half_starts[2];     ///< kSumBias − 32·Σ q over the first and the second 16, for codes 0 … 63 around 32
};
static_assert(sizeof(ActivationBlock) == 64);

/// Blocks of smaller activations are zero.
constexpr float kSmallestActivation = 0x1p-118f;

/// Room that an Int8Kernel needs for unpacked weights.
constexpr int64_t kInt8PanelBytes = 64 * 1024;

/// out[t][16g + lane] = the dot product of row 16g + lane with activations x[t], over all columns and all groups.
/// x[t] points to cols/32 blocks. One definition for every number of tokens and groups (kernels_scalar_int8.cpp): the
/// integer dot product of 32 columns is exact; over these groups of 32, ascending,
///   Q8_0, Q4_0, Q5_0, IQ4_NL   acc = fma(f32(dot) · d, scale, acc)
///   IQ4_XS                     acc = fma(f32(dot) · (d·sc), scale, acc)
///   Q4_K, Q5_K                 acc = fma(f32(dot) · (d·sc), scale, acc), then acc = fma(−(dmin·m), scaled_sum, acc)
///   Q4_1, Q5_1                 acc = fma(f32(dot) · d, scale, acc), then acc = fma(m, scaled_sum, acc)
///   IQ3_XXS, IQ3_S, IQ2_XXS, IQ1_S   as IQ4_XS, of weights ÷ scale (IQ1_S: 8·(value ± 1/8), an eighth of the scale)
///   Q6_K, Q3_K    of each half h of 16 columns: acc = fma(f32(dot[h]) · (d·sc[h]), scale, acc)
///   IQ2_XS, IQ2_S, IQ1_M          the same, of weights ÷ scale
///   Q2_K          dot of sc[h]·code: acc = fma(f32(dot) · d, scale, acc), then for each half
///                 acc = fma(−(dmin·m[h]), half_scaled_sums[h], acc)
/// where a product f32(dot) · d that is zero is +0. The matrix's scales are finite (checked when weights are loaded).
using Int8Kernel = void (*)(const PackedGroups& groups, const ActivationBlock* const* x, int64_t token_count,
                            std::byte* panel /* kInt8PanelBytes, aligned to 64 */, float* out,
                            int64_t out_stride) noexcept;

/// f32 operand of multiply(): element (group g, step k, lane) at data[g · group_stride + k · k_stride + lane].
struct Panel {
  const float* data = nullptr;
  int64_t group_stride = 0;
  int64_t k_stride = kLanes;
  int64_t group_count = 0;
};

/// What the online softmax keeps of a row between blocks of scores.
struct SoftmaxState {
  float max = -__builtin_inff();
  float sum = 0.0f;
};

/// Columns [first_col, first_col + col_count) of a group as f32, exactly as quant::dequantize_packed defines them.
/// first_col is a multiple of 32, and so is col_count unless it ends the row.
using DecodeKernel = void (*)(const PackedGroup& group, int64_t first_col, int64_t col_count,
                              float* out /* [col_count, 16] */) noexcept;

/// The arithmetic of one instruction set. All tables give the same bits: every f32 operation and its order is part of
/// each function's definition (kernels_scalar.cpp is that definition in code), and lanes never mix except in tree(),
/// the sum of 16 lanes by halving: l[i] += l[i+8], then i+4, i+2, i+1.
struct KernelTable {
  const char* name = nullptr;

  DecodeKernel decode_f16 = nullptr;
  DecodeKernel decode_bf16 = nullptr;
  DecodeKernel decode_f8_e4m3 = nullptr;
  DecodeKernel decode_q8_0 = nullptr;
  DecodeKernel decode_q4_0 = nullptr;
  DecodeKernel decode_q4_1 = nullptr;
  DecodeKernel decode_q5_0 = nullptr;
  DecodeKernel decode_q5_1 = nullptr;
  DecodeKernel decode_q2_k = nullptr;
  DecodeKernel decode_q3_k = nullptr;
  DecodeKernel decode_q4_k = nullptr;
  DecodeKernel decode_q5_k = nullptr;
  DecodeKernel decode_q6_k = nullptr;
  DecodeKernel decode_iq4_nl = nullptr;
  DecodeKernel decode_iq4_xs = nullptr;
  DecodeKernel decode_iq3_xxs = nullptr;
  DecodeKernel decode_iq3_s = nullptr;
  DecodeKernel decode_iq2_xxs = nullptr;
  DecodeKernel decode_iq2_xs = nullptr;
  DecodeKernel decode_iq2_s = nullptr;
  DecodeKernel decode_iq1_s = nullptr;
  DecodeKernel decode_iq1_m = nullptr;

  Int8Kernel int8_q8_0 = nullptr;
  Int8Kernel int8_q4_0 = nullptr;
  Int8Kernel int8_q4_1 = nullptr;
  Int8Kernel int8_q5_0 = nullptr;
  Int8Kernel int8_q5_1 = nullptr;
  Int8Kernel int8_q2_k = nullptr;
  Int8Kernel int8_q3_k = nullptr;
  Int8Kernel int8_q4_k = nullptr;
  Int8Kernel int8_q5_k = nullptr;
  Int8Kernel int8_q6_k = nullptr;
  Int8Kernel int8_iq4_nl = nullptr;
  Int8Kernel int8_iq4_xs = nullptr;
  Int8Kernel int8_iq3_xxs = nullptr;
  Int8Kernel int8_iq3_s = nullptr;
  Int8Kernel int8_iq2_xxs = nullptr;
  Int8Kernel int8_iq2_xs = nullptr;
  Int8Kernel int8_iq2_s = nullptr;
  Int8Kernel int8_iq1_s = nullptr;
  Int8Kernel int8_iq1_m = nullptr;

  /// x[cols] → blocks[cols/32]. Per block, with m = max|x|: scale = m / 127, q = x · (127 / m) rounded half to even. A
  /// block with m < kSmallestActivation, whose 127 / m could overflow, counts as zero; one with a NaN or infinity gets
  /// scale NaN and q = 0, so that every result it touches is NaN.
  void (*quantize_activations)(const float* x, int64_t cols, ActivationBlock* blocks) noexcept = nullptr;

  /// acc[t][16g + lane] = fma(panel(g, k, lane), x[t][k], acc[t][16g + lane]) for k = 0 … k_count − 1: one chain per
  /// element, which a later call may continue.
  void (*multiply)(const Panel& panel, const float* x, int64_t x_stride, int64_t token_count, int64_t k_count,
                   float* acc, int64_t acc_stride) noexcept = nullptr;

  /// out[t][k] = tree over lanes of the chain over g of fma(panel(g, k, lane), weights[t][16g + lane], ·): rows of the
  /// panel weighted and summed, the product with the transposed matrix.
  void (*combine_rows)(const Panel& panel, const float* weights, int64_t weights_stride, int64_t token_count,
                       int64_t k_count, float* out, int64_t out_stride) noexcept = nullptr;

  /// y = (x · r) · w with r = 1 / sqrt(tree(Σ x²) / n + eps); lane l sums x[i]² for i ≡ l mod 16, ascending. y may be
  /// x.
  void (*rms_norm)(const float* x, const float* w, int64_t n, float eps, float* y) noexcept = nullptr;

  /// out = (z / (1 + exp(−z))) · up with z = gate. out may be gate or up.
  void (*silu_multiply)(const float* gate, const float* up, int64_t n, float* out) noexcept = nullptr;

  /// Takes n ≥ 1 more scores of a row into its softmax: s := s · scale; the maximum rises to m'; scores become exp(s −
  /// m'); sum := sum · a + tree(Σ). Returns a = exp(m − m'), by which the row's earlier weighted sum must be
  /// multiplied.
  float (*softmax_step)(float* scores, int64_t n, float scale, SoftmaxState& state) noexcept = nullptr;

  Bf16Kernels bf16;
};

/// The definition, for any x86-64.
const KernelTable& scalar_kernels() noexcept;
/// Needs AVX2, FMA and F16C.
const KernelTable& avx2_kernels() noexcept;
/// Needs AVX-512 F, BW, DQ, VL and VNNI.
const KernelTable& avx512_kernels() noexcept;
/// Needs what avx512_kernels() needs and amx_usable().
const KernelTable& amx_kernels() noexcept;

}  // namespace moraine::cpu

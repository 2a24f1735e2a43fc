#pragma once

#include <cstddef>
#include <cstdint>

namespace moraine::cpu {

struct PackedGroups;

/// The bits of a bf16 number: the upper half of an f32. Here always made by rounding f32 to the nearest (ties away from
/// zero; NaN and infinity stay), with everything below 2^-48 zero. So the numbers are multiples of 2^-56, their
/// products and the sums of these multiples of 2^-112, and no sum is ever subnormal: hardware that flushes subnormals
/// (AMX) and hardware that does not give the same bits.
using Bf16 = uint16_t;
constexpr float kSmallestBf16 = 0x1p-48f;
/// f32 sums that products of bf16 numbers are added to are kept above this in the same way.
constexpr float kSmallestBf16Sum = 0x1p-100f;

/// k that a bf16 dot product takes at a time.
constexpr int64_t kBf16Steps = 32;

/// Right operand of a bf16 product, in the order of AMX's second operand: column 16g + lane of step k stands at
/// data[g · group_stride + k/2 · 32 + 2 · lane + k % 2].
struct Bf16Panel {
  const Bf16* data = nullptr;
  int64_t group_stride = 0;
  int64_t group_count = 0;
};

/// A block of scores on its way through the online softmax: query rows are lanes, tokens go downwards.
struct Bf16Scores {
  const float* scores = nullptr;  // [token_count rounded up to 32, stride]
  int64_t stride = 0;
  int64_t token_count = 0;
  int64_t group_count = 0;      // of 16 query rows
  const float* seen = nullptr;  // [16 · groups] how many of the tokens each row sees, from the first on
  float scale = 1.0f;           // positive; of the scores, with log2(e) in it
  float* max = nullptr;         // [16 · groups] largest raw score so far
  float* sum = nullptr;         // [16 · groups] Σ of the weights so far
  float* rescale = nullptr;     // [16 · groups] out: what earlier weighted sums must be multiplied with
  Bf16* weights = nullptr;      // [16 · groups, weight_stride] out: [token_count rounded up to 32] per row
  int64_t weight_stride = 0;
};

/// Room that an AbsorbKernel needs.
constexpr int64_t kAbsorbScratchBytes = 64 * 1024;
/// Row groups that it takes at most: so many that its integer sums fit.
constexpr int64_t kAbsorbGroups = 64;

/// out[k] = Σ over rows i of x[i] · W[i][k], for all columns of the groups' rows: the product with the transposed
/// matrix. Per block of 32 columns, with W[i][k] = D[i] · code[i][k] − M[i] there: y[i] = x[i] · D[i]; m = max|y|; q =
/// y · (16256 / m) rounded half to even (q = 128 · high + low, two int8); dot = Σ code · q, exact; out[k] =
/// fma(f32(dot), m / 16256, tree over lanes of the chain over groups of fma(−M[i], x[i], ·)). m < 2^-110 counts as
/// zero; if a y is not finite, these columns are NaN.
using AbsorbKernel = void (*)(const PackedGroups& groups, const float* x,
                              std::byte* scratch /* kAbsorbScratchBytes, aligned to 64 */, float* out) noexcept;
constexpr float kAbsorbSteps = 16256.0f;  // 127 · 128
constexpr float kSmallestAbsorbed = 0x1p-110f;

/// The arithmetic of attention in bf16. As in KernelTable, every function is defined down to the last bit
/// (kernels_scalar_bf16.cpp); results are the same for all tables.
struct Bf16Kernels {
  /// out[i] = bf16 of x[i].
  void (*round)(const float* x, int64_t n, Bf16* out) noexcept = nullptr;

  /// Rows as the steps k of a Bf16Panel: out[g][t / 2][lane][t % 2] = rows[t][16g + lane], groups `group_stride` apart;
  /// an odd last row is paired with zeros.
  void (*pair_rows)(const Bf16* rows, int64_t row_stride, int64_t row_count, int64_t group_count, Bf16* out,
                    int64_t group_stride) noexcept = nullptr;
  /// The same from f32, rounded.
  void (*pair_f32_rows)(const float* rows, int64_t row_stride, int64_t row_count, int64_t group_count, Bf16* out,
                        int64_t group_stride) noexcept = nullptr;

  /// c[m][16g + lane] (+)= Σ over k of a[m][k] · b(g, k, lane): for every 32 k a chain of f32 fma over the even ones
  /// and one over the odd ones, both from zero in ascending order; their sum is added to c. That is what TDPBF16PS does
  /// (Intel SDM; confirmed on hardware for 5 million random sums). `continued`: c goes on; else it starts at zero.
  /// row_count is a multiple of 16, k_count of 32.
  void (*multiply)(const Bf16* a, int64_t a_stride, int64_t row_count, const Bf16Panel& b, int64_t k_count,
                   bool continued, float* c, int64_t c_stride) noexcept = nullptr;

  /// x[i] := x[i] · factor, zero below kSmallestBf16Sum.
  void (*rescale)(float* x, int64_t n, float factor) noexcept = nullptr;

  /// Per row: m' = max(m, seen scores); a = 2^((m − m') · scale); weight = bf16 of 2^fma(score, scale, −(m' · scale)),
  /// zero for tokens not seen; sum := fma(sum, a, (Σ of weights of even tokens) + (Σ of odd ones)), each sum in
  /// ascending order. 2^t is a polynomial of degree 4 (kernels_exp.h), 2^-18 off at most, zero for t below about −48.
  void (*softmax)(const Bf16Scores& block) noexcept = nullptr;

  AbsorbKernel absorb_q8_0 = nullptr;
  AbsorbKernel absorb_q4_0 = nullptr;
  AbsorbKernel absorb_q4_k = nullptr;
};

}  // namespace moraine::cpu

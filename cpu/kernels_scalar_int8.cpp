#include "cpu/kernels_scalar_int8.h"

#include <cmath>
#include <limits>
#include <type_traits>

#include "quant/dequantize.h"
#include "quant/grid_octets.h"
#include "quant/packed_blocks.h"

// What the int8 kernels mean, written plainly. The other instruction sets are tested against these functions bit by
// bit.
namespace moraine::cpu {
namespace {

/// 32 weights of a row: weight[i] = scale · q[i] − minimum, with q an integer; of each half in formats with groups
/// of 16.
struct WeightBlock {
  int q[kActivationBlock];
  float scale[2];
  float minimum[2];
};

/// What a format has per 32 columns: integer dot products with a scale of their own, and minima.
template <class Block>
constexpr int kDots = 1;
template <>
constexpr int kDots<quant::BlockQ3_K> = 2;
template <>
constexpr int kDots<quant::BlockQ6_K> = 2;
template <quant::IsGridFormat Block>
constexpr int kDots<Block> = quant::kHasSixteenScales<Block> ? 2 : 1;

template <class Block>
constexpr int kMinima = 0;
template <>
constexpr int kMinima<quant::BlockQ4_1> = 1;
template <>
constexpr int kMinima<quant::BlockQ5_1> = 1;
template <>
constexpr int kMinima<quant::BlockQ4_K> = 1;
template <>
constexpr int kMinima<quant::BlockQ5_K> = 1;
template <>
constexpr int kMinima<quant::BlockQ2_K> = 2;

/// Columns 32·sub … 32·sub + 31 of a block, whose codes (read_codes()) start at `codes`. Formats of 32 columns first.
void set(const quant::BlockQ4_0& block, const uint8_t* codes, int /*sub*/, WeightBlock& out) {
  for (int i = 0; i < 32; ++i) out.q[i] = codes[i] - 8;
  out.scale[0] = quant::f32_from_f16(block.d);
}

void set(const quant::BlockQ5_0& block, const uint8_t* codes, int /*sub*/, WeightBlock& out) {
  for (int i = 0; i < 32; ++i) out.q[i] = codes[i] - 16;
  out.scale[0] = quant::f32_from_f16(block.d);
}

void set(const quant::BlockIQ4_NL& block, const uint8_t* codes, int /*sub*/, WeightBlock& out) {
  for (int i = 0; i < 32; ++i) out.q[i] = quant::kIq4Values[codes[i]];
  out.scale[0] = quant::f32_from_f16(block.d);
}

/// Q4_1 and Q5_1.
template <class Block>
requires(Block::kElements == 32) void set(const Block& block, const uint8_t* codes, int /*sub*/, WeightBlock& out) {
  for (int i = 0; i < 32; ++i) out.q[i] = codes[i];
  out.scale[0] = quant::f32_from_f16(block.d);
  out.minimum[0] = -quant::f32_from_f16(block.m);
}

void set(const quant::BlockQ2_K& block, const uint8_t* codes, int sub, WeightBlock& out) {
  for (int i = 0; i < 32; ++i) out.q[i] = (block.scales[2 * sub + i / 16] & 15) * codes[i];
  out.scale[0] = quant::f32_from_f16(block.d);
  for (int h = 0; h < 2; ++h) {
    out.minimum[h] = quant::f32_from_f16(block.dmin) * static_cast<float>(block.scales[2 * sub + h] >> 4);
  }
}

void set(const quant::BlockQ3_K& block, const uint8_t* codes, int sub, WeightBlock& out) {
  for (int i = 0; i < 32; ++i) out.q[i] = codes[i] - 4;
  for (int h = 0; h < 2; ++h) {
    out.scale[h] = quant::f32_from_f16(block.d) * static_cast<float>(quant::q3_k_scale(block.scales, 2 * sub + h) - 32);
  }
}

void set(const quant::BlockQ6_K& block, const uint8_t* codes, int sub, WeightBlock& out) {
  for (int i = 0; i < 32; ++i) out.q[i] = codes[i] - 32;
  for (int h = 0; h < 2; ++h) {
    out.scale[h] = quant::f32_from_f16(block.d) * static_cast<float>(block.scales[2 * sub + h]);
  }
}

void set(const quant::BlockIQ4_XS& block, const uint8_t* codes, int sub, WeightBlock& out) {
  for (int i = 0; i < 32; ++i) out.q[i] = quant::kIq4Values[codes[i]];
  out.scale[0] = quant::f32_from_f16(block.d) * static_cast<float>(quant::iq4_xs_scale(block, sub) - 32);
}

/// Q4_K and Q5_K.
template <class Block>
requires(Block::kElements == 256) void set(const Block& block, const uint8_t* codes, int sub, WeightBlock& out) {
  const quant::ScaleMin bits = quant::q4_k_scale_min(block.scales, sub);
  for (int i = 0; i < 32; ++i) out.q[i] = codes[i];
  out.scale[0] = quant::f32_from_f16(block.d) * static_cast<float>(bits.scale);
  out.minimum[0] = quant::f32_from_f16(block.dmin) * static_cast<float>(bits.min);
}

/// Columns 32·b … 32·b + 31 of row `r` of a packed group.
template <class Block>
WeightBlock block_at(const std::byte* group, int64_t cols, int64_t b, int64_t r) {
  constexpr int64_t kSubs = Block::kElements / 32;
  Block packed;
  quant::gather(group, cols, b / kSubs, r, packed);
  WeightBlock out{};
  if constexpr (std::is_same_v<Block, quant::BlockQ8_0>) {
    for (int i = 0; i < 32; ++i) out.q[i] = packed.q[i];
    out.scale[0] = quant::f32_from_f16(packed.d);
  } else if constexpr (quant::IsGridFormat<Block>) {
    const auto sub = static_cast<int>(b % kSubs);
    const float d = quant::f32_from_f16(quant::grid_d(packed));
    for (int i = 0; i < 32; ++i) {
      out.q[i] = static_cast<int8_t>(quant::grid_octet(packed, 4 * sub + i / 8) >> (8 * (i % 8)));
    }
    for (int h = 0; h < 2; ++h) out.scale[h] = quant::grid_scale(packed, d, 2 * sub + h);
  } else {
    uint8_t codes[Block::kElements];
    read_codes(packed, codes);
    const auto sub = static_cast<int>(b % kSubs);
    set(packed, codes + 32 * sub, sub, out);
  }
  return out;
}

/// What 32 columns add to a row's sum.
template <class Block>
float add_block(float acc, const WeightBlock& weights, const ActivationBlock& x) {
  constexpr int kWidth = 32 / kDots<Block>;
  for (int h = 0; h < kDots<Block>; ++h) {
    int32_t dot = 0;
    for (int i = h * kWidth; i < (h + 1) * kWidth; ++i) dot += weights.q[i] * x.q[i];
    const float product = static_cast<float>(dot) * weights.scale[h] + 0.0f;
    acc = std::fma(product, x.scale, acc);
  }
  for (int m = 0; m < kMinima<Block>; ++m) {
    acc = std::fma(-weights.minimum[m], kMinima<Block> == 1 ? x.scaled_sum : x.half_scaled_sums[m], acc);
  }
  return acc;
}

/// The sum of 16 lanes by halving.
float tree(float (&lanes)[kLanes]) noexcept {
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

/// Columns 32·b … 32·b + 31 of AbsorbKernel.
template <class Block>
void absorb_block(const PackedGroups& groups, const float* x, int64_t b, float* out) noexcept {
  const int64_t rows = groups.group_count * kLanes;
  const auto weights = [&](int64_t row) {
    return block_at<Block>(groups.data + row / kLanes * groups.group_bytes, groups.cols, b, row % kLanes);
  };
  float largest = 0.0f, minima[kLanes] = {};
  bool finite = true;
  for (int64_t row = 0; row < rows; ++row) {
    const WeightBlock block = weights(row);
    const float y = x[row] * block.scale[0];
    finite = finite && std::isfinite(y);
    largest = std::fmax(largest, std::fabs(y));
    if constexpr (kMinima<Block> == 1) {
      minima[row % kLanes] = std::fma(-block.minimum[0], x[row], minima[row % kLanes]);
    }
  }
  const bool zero = !finite || largest < kSmallestAbsorbed;
  const float inverse = zero ? 0.0f : kAbsorbSteps / largest;
  int64_t dots[kActivationBlock] = {};
  for (int64_t row = 0; row < rows && !zero; ++row) {
    const WeightBlock block = weights(row);
    const auto q = static_cast<int32_t>(std::nearbyint(x[row] * block.scale[0] * inverse));
    for (int64_t k = 0; k < kActivationBlock; ++k) dots[k] += int64_t{q} * block.q[k];
  }
  float scale = zero ? 0.0f : largest / kAbsorbSteps;
  if (!finite) scale = std::numeric_limits<float>::quiet_NaN();
  const float minimum = tree(minima);
  for (int64_t k = 0; k < kActivationBlock; ++k) {
    out[b * kActivationBlock + k] = std::fma(static_cast<float>(dots[k]), scale, minimum);
  }
}

void quantize_block(const float* x, ActivationBlock& block) noexcept {
  float largest = 0.0f;
  bool finite = true;
  for (int64_t i = 0; i < kActivationBlock; ++i) {
    finite = finite && std::isfinite(x[i]);
    largest = std::fmax(largest, std::fabs(x[i]));
  }
  const bool zero = !finite || largest < kSmallestActivation;
  const float inverse = zero ? 0.0f : 127.0f / largest;
  int32_t halves[2] = {};
  for (int64_t i = 0; i < kActivationBlock; ++i) {
    block.q[i] = zero ? int8_t{0} : static_cast<int8_t>(std::nearbyint(x[i] * inverse));
    halves[i / 16] += block.q[i];
  }
  const int32_t sum = halves[0] + halves[1];
  block.scale = zero ? 0.0f : largest / 127.0f;
  if (!finite) block.scale = std::numeric_limits<float>::quiet_NaN();
  block.scaled_sum = block.scale * static_cast<float>(sum);
  block.start_q4_0 = kSumBias - 8 * sum;
  block.start_q8_0 = kSumBias - 128 * sum;
  for (int h = 0; h < 2; ++h) {
    block.half_scaled_sums[h] = block.scale * static_cast<float>(halves[h]);
    block.half_starts[h] = kSumBias - 32 * halves[h];
  }
}

}  // namespace

void scalar_quantize_activations(const float* x, int64_t cols, ActivationBlock* blocks) noexcept {
  for (int64_t b = 0; b < cols / kActivationBlock; ++b) quantize_block(x + b * kActivationBlock, blocks[b]);
}

template <class Block>
void scalar_int8(const PackedGroups& groups, const ActivationBlock* const* x, int64_t token_count, std::byte* /*panel*/,
                 float* out, int64_t out_stride) noexcept {
  for (int64_t row = 0; row < groups.group_count * kLanes; ++row) {
    const std::byte* group = groups.data + row / kLanes * groups.group_bytes;
    for (int64_t t = 0; t < token_count; ++t) out[t * out_stride + row] = 0.0f;
    for (int64_t b = 0; b < groups.cols / kActivationBlock; ++b) {
      const WeightBlock weights = block_at<Block>(group, groups.cols, b, row % kLanes);
      for (int64_t t = 0; t < token_count; ++t) {
        float& acc = out[t * out_stride + row];
        acc = add_block<Block>(acc, weights, x[t][b]);
      }
    }
  }
}

template void scalar_int8<quant::BlockQ8_0>(const PackedGroups&, const ActivationBlock* const*, int64_t, std::byte*,
                                            float*, int64_t) noexcept;
template void scalar_int8<quant::BlockQ4_0>(const PackedGroups&, const ActivationBlock* const*, int64_t, std::byte*,
                                            float*, int64_t) noexcept;
template void scalar_int8<quant::BlockQ4_1>(const PackedGroups&, const ActivationBlock* const*, int64_t, std::byte*,
                                            float*, int64_t) noexcept;
template void scalar_int8<quant::BlockQ5_0>(const PackedGroups&, const ActivationBlock* const*, int64_t, std::byte*,
                                            float*, int64_t) noexcept;
template void scalar_int8<quant::BlockQ5_1>(const PackedGroups&, const ActivationBlock* const*, int64_t, std::byte*,
                                            float*, int64_t) noexcept;
template void scalar_int8<quant::BlockQ2_K>(const PackedGroups&, const ActivationBlock* const*, int64_t, std::byte*,
                                            float*, int64_t) noexcept;
template void scalar_int8<quant::BlockQ3_K>(const PackedGroups&, const ActivationBlock* const*, int64_t, std::byte*,
                                            float*, int64_t) noexcept;
template void scalar_int8<quant::BlockQ4_K>(const PackedGroups&, const ActivationBlock* const*, int64_t, std::byte*,
                                            float*, int64_t) noexcept;
template void scalar_int8<quant::BlockQ5_K>(const PackedGroups&, const ActivationBlock* const*, int64_t, std::byte*,
                                            float*, int64_t) noexcept;
template void scalar_int8<quant::BlockQ6_K>(const PackedGroups&, const ActivationBlock* const*, int64_t, std::byte*,
                                            float*, int64_t) noexcept;
template void scalar_int8<quant::BlockIQ4_NL>(const PackedGroups&, const ActivationBlock* const*, int64_t, std::byte*,
                                              float*, int64_t) noexcept;
template void scalar_int8<quant::BlockIQ4_XS>(const PackedGroups&, const ActivationBlock* const*, int64_t, std::byte*,
                                              float*, int64_t) noexcept;
template void scalar_int8<quant::BlockIQ3_XXS>(const PackedGroups&, const ActivationBlock* const*, int64_t, std::byte*,
                                               float*, int64_t) noexcept;
template void scalar_int8<quant::BlockIQ3_S>(const PackedGroups&, const ActivationBlock* const*, int64_t, std::byte*,
                                             float*, int64_t) noexcept;
template void scalar_int8<quant::BlockIQ2_XXS>(const PackedGroups&, const ActivationBlock* const*, int64_t, std::byte*,
                                               float*, int64_t) noexcept;
template void scalar_int8<quant::BlockIQ2_XS>(const PackedGroups&, const ActivationBlock* const*, int64_t, std::byte*,
                                              float*, int64_t) noexcept;
template void scalar_int8<quant::BlockIQ2_S>(const PackedGroups&, const ActivationBlock* const*, int64_t, std::byte*,
                                             float*, int64_t) noexcept;
template void scalar_int8<quant::BlockIQ1_S>(const PackedGroups&, const ActivationBlock* const*, int64_t, std::byte*,
                                             float*, int64_t) noexcept;
template void scalar_int8<quant::BlockIQ1_M>(const PackedGroups&, const ActivationBlock* const*, int64_t, std::byte*,
                                             float*, int64_t) noexcept;

template <class Block>
void scalar_absorb(const PackedGroups& groups, const float* x, const std::byte* /*next*/, std::byte* /*scratch*/,
                   float* out) noexcept {
  static_assert(kDots<Block> == 1 && kMinima<Block> <= 1);
  for (int64_t b = 0; b < groups.cols / kActivationBlock; ++b) absorb_block<Block>(groups, x, b, out);
}

template void scalar_absorb<quant::BlockQ8_0>(const PackedGroups&, const float*, const std::byte*, std::byte*,
                                              float*) noexcept;
template void scalar_absorb<quant::BlockQ4_0>(const PackedGroups&, const float*, const std::byte*, std::byte*,
                                              float*) noexcept;
template void scalar_absorb<quant::BlockQ4_K>(const PackedGroups&, const float*, const std::byte*, std::byte*,
                                              float*) noexcept;

}  // namespace moraine::cpu

#include "cpu/kernels_scalar_int8.h"

#include <algorithm>
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
  int q[kBlockColumns];
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
  for (int i = 0; i < 32; ++i) out.q[i] = 8 * (codes[i] - 16);
  out.scale[0] = quant::f32_from_f16(block.d) * 0.125f;
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
  for (int i = 0; i < 32; ++i) out.q[i] = 8 * (codes[i] - 4);
  for (int h = 0; h < 2; ++h) {
    out.scale[h] =
        quant::f32_from_f16(block.d) * 0.125f * static_cast<float>(quant::q3_k_scale(block.scales, 2 * sub + h) - 32);
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

/// The formats of signed bytes (kernels.h).
template <class Block>
constexpr bool kSigned = std::is_same_v<Block, quant::BlockQ8_0> || std::is_same_v<Block, quant::BlockQ5_0> ||
                         std::is_same_v<Block, quant::BlockIQ4_NL> || std::is_same_v<Block, quant::BlockIQ4_XS> ||
                         (quant::IsGridFormat<Block> && !quant::kHasSixteenScales<Block>);

/// The largest |q| of the others. Those with 16 scales leave room for their codes, which are 64 more.
template <class Block>
constexpr int kLargest = quant::IsGridFormat<Block> ? 64 : 32;
template <>
constexpr int kLargest<quant::BlockQ4_0> = 8;
template <>
constexpr int kLargest<quant::BlockQ4_1> = 15;
template <>
constexpr int kLargest<quant::BlockQ5_1> = 31;
template <>
constexpr int kLargest<quant::BlockQ2_K> = 45;

/// The formats whose scales and minima are integers.
template <class Block>
constexpr bool kIntegerScales = std::is_same_v<Block, quant::BlockQ4_K> || std::is_same_v<Block, quant::BlockQ5_K>;

/// 256 weights of a row as integers: weight ≈ d · w − dmin · minimum, with a minimum per 32 columns.
struct IntegerWeights {
  int w[kInt8Columns];
  int minima[kInt8Columns / kBlockColumns];
  float d, dmin;
};

/// Q4_K and Q5_K, exactly.
template <class Block>
IntegerWeights weights_of(const Block& block) {
  IntegerWeights out{};
  out.d = quant::f32_from_f16(block.d);
  out.dmin = quant::f32_from_f16(block.dmin);
  uint8_t codes[kInt8Columns];
  read_codes(block, codes);
  for (int b = 0; b < kInt8Columns / kBlockColumns; ++b) {
    const quant::ScaleMin bits = quant::q4_k_scale_min(block.scales, b);
    out.minima[b] = bits.min;
    for (int i = 0; i < kBlockColumns; ++i) out.w[b * kBlockColumns + i] = bits.scale * codes[b * kBlockColumns + i];
  }
  return out;
}

int rounded(float value) {
  return static_cast<int>(std::nearbyint(value));
}

template <class Block>
IntegerWeights integer_weights(const std::byte* group, int64_t cols, int64_t first_block, int64_t r) {
  if constexpr (kIntegerScales<Block>) {
    Block packed;
    quant::gather(group, cols, first_block * kBlockColumns / kInt8Columns, r, packed);
    return weights_of(packed);
  }
  const int64_t count = std::min(kInt8Columns / kBlockColumns, cols / kBlockColumns - first_block);
  WeightBlock blocks[kInt8Columns / kBlockColumns];
  float largest = 0.0f, largest_minimum = 0.0f;
  for (int64_t b = 0; b < count; ++b) {
    blocks[b] = block_at<Block>(group, cols, first_block + b, r);
    for (int h = 0; h < kDots<Block>; ++h) largest = std::fmax(largest, std::fabs(blocks[b].scale[h]));
    for (int m = 0; m < kMinima<Block>; ++m) {
      largest_minimum = std::fmax(largest_minimum, std::fabs(blocks[b].minimum[m]));
    }
  }
  IntegerWeights out{};
  if constexpr (kSigned<Block>) {
    out.d = largest * (128.0f / 32767.0f);
    const float inverse = largest > 0.0f ? 32767.0f / largest : 0.0f;
    for (int64_t i = 0; i < count * kBlockColumns; ++i) {
      const WeightBlock& block = blocks[i / kBlockColumns];
      // floor(q · 256 · fraction / 2^15 + 1/2)
      out.w[i] = (block.q[i % kBlockColumns] * 256 * rounded(block.scale[0] * inverse) + (1 << 14)) >> 15;
    }
  } else {
    out.d = (largest * static_cast<float>(kLargest<Block>) + largest_minimum) * (1.0f / 32730.0f);
    const float inverse = out.d > 0.0f ? 1.0f / out.d : 0.0f;
    for (int64_t i = 0; i < count * kBlockColumns; ++i) {
      const WeightBlock& block = blocks[i / kBlockColumns];
      const int64_t half = i % kBlockColumns / 16;
      out.w[i] = rounded(block.scale[kDots<Block> == 2 ? half : 0] * inverse) * block.q[i % kBlockColumns] -
                 rounded(block.minimum[kMinima<Block> == 2 ? half : 0] * inverse);
    }
  }
  return out;
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
  int64_t dots[kBlockColumns] = {};
  for (int64_t row = 0; row < rows && !zero; ++row) {
    const WeightBlock block = weights(row);
    const auto q = static_cast<int32_t>(std::nearbyint(x[row] * block.scale[0] * inverse));
    for (int64_t k = 0; k < kBlockColumns; ++k) dots[k] += int64_t{q} * block.q[k];
  }
  float scale = zero ? 0.0f : largest / kAbsorbSteps;
  if (!finite) scale = std::numeric_limits<float>::quiet_NaN();
  const float minimum = tree(minima);
  for (int64_t k = 0; k < kBlockColumns; ++k) {
    out[b * kBlockColumns + k] = std::fma(static_cast<float>(dots[k]), scale, minimum);
  }
}

/// Up to 256 activations, the rest zero.
void quantize_group(const float* x, int64_t count, const Int8Rows& rows, int64_t row, int64_t group) noexcept {
  float largest = 0.0f;
  bool finite = true;
  for (int64_t i = 0; i < count; ++i) {
    finite = finite && std::isfinite(x[i]);
    largest = std::fmax(largest, std::fabs(x[i]));
  }
  const bool zero = !finite || largest < kSmallestActivation;
  const float inverse = zero ? 0.0f : 127.0f / largest;
  const int64_t at = rows.at(row, group);
  rows.scales[at] = !finite ? std::numeric_limits<float>::quiet_NaN() : zero ? 0.0f : largest / 127.0f;
  std::fill_n(rows.minus_sums + at * 16, 16, int16_t{0});
  std::fill_n(rows.minus_block_sums + at * 8, 8, int16_t{0});
  for (int64_t i = 0; i < kInt8Columns; ++i) {
    const auto q = zero || i >= count ? int8_t{0} : static_cast<int8_t>(std::nearbyint(x[i] * inverse));
    const int64_t to = rows.q_at(row, group, i / 64);
    rows.q[to + i % 64] = q;
    int16_t& sum = rows.minus_sums[at * 16 + i / 16];
    sum = static_cast<int16_t>(sum - q);
    int16_t& block_sum = rows.minus_block_sums[at * 8 + i / kBlockColumns];
    block_sum = static_cast<int16_t>(block_sum - q);
    if (rows.pairs != nullptr) rows.pairs[to + i % 2 * 32 + i % 64 / 4 * 2 + i % 4 / 2] = q;
  }
}

}  // namespace

void scalar_quantize_activations(const float* x, const Int8Rows& rows, int64_t row) noexcept {
  for (int64_t group = 0; group < rows.groups(); ++group) {
    const int64_t first = group * kInt8Columns;
    quantize_group(x + first, std::min(kInt8Columns, rows.cols - first), rows, row, group);
  }
}

template <class Block>
void scalar_int8(const PackedGroups& groups, const Int8Rows& x, float* out, int64_t out_stride) noexcept {
  for (int64_t row = 0; row < groups.group_count * kLanes; ++row) {
    const std::byte* group = groups.data + row / kLanes * groups.group_bytes;
    for (int64_t t = 0; t < x.count; ++t) out[t * out_stride + row] = 0.0f;
    for (int64_t part = 0; part < x.groups(); ++part) {
      const IntegerWeights weights =
          integer_weights<Block>(group, groups.cols, part * kInt8Columns / kBlockColumns, row % kLanes);
      for (int64_t t = 0; t < x.count; ++t) {
        int32_t dot = 0, minima = 0;
        for (int64_t i = 0; i < kInt8Columns; ++i) {
          const int q = x.q[x.q_at(t, part, i / 64) + i % 64];
          dot += weights.w[i] * q;
          minima -= weights.minima[i / kBlockColumns] * q;
        }
        float product = static_cast<float>(dot) * weights.d;
        if constexpr (kIntegerScales<Block>) product = std::fma(static_cast<float>(minima), weights.dmin, product);
        float& acc = out[t * out_stride + row];
        acc = std::fma(product, x.scales[x.at(t, part)], acc);
      }
    }
  }
}

template void scalar_int8<quant::BlockQ8_0>(const PackedGroups&, const Int8Rows&, float*, int64_t) noexcept;
template void scalar_int8<quant::BlockQ4_0>(const PackedGroups&, const Int8Rows&, float*, int64_t) noexcept;
template void scalar_int8<quant::BlockQ4_1>(const PackedGroups&, const Int8Rows&, float*, int64_t) noexcept;
template void scalar_int8<quant::BlockQ5_0>(const PackedGroups&, const Int8Rows&, float*, int64_t) noexcept;
template void scalar_int8<quant::BlockQ5_1>(const PackedGroups&, const Int8Rows&, float*, int64_t) noexcept;
template void scalar_int8<quant::BlockQ2_K>(const PackedGroups&, const Int8Rows&, float*, int64_t) noexcept;
template void scalar_int8<quant::BlockQ3_K>(const PackedGroups&, const Int8Rows&, float*, int64_t) noexcept;
template void scalar_int8<quant::BlockQ4_K>(const PackedGroups&, const Int8Rows&, float*, int64_t) noexcept;
template void scalar_int8<quant::BlockQ5_K>(const PackedGroups&, const Int8Rows&, float*, int64_t) noexcept;
template void scalar_int8<quant::BlockQ6_K>(const PackedGroups&, const Int8Rows&, float*, int64_t) noexcept;
template void scalar_int8<quant::BlockIQ4_NL>(const PackedGroups&, const Int8Rows&, float*, int64_t) noexcept;
template void scalar_int8<quant::BlockIQ4_XS>(const PackedGroups&, const Int8Rows&, float*, int64_t) noexcept;
template void scalar_int8<quant::BlockIQ3_XXS>(const PackedGroups&, const Int8Rows&, float*, int64_t) noexcept;
template void scalar_int8<quant::BlockIQ3_S>(const PackedGroups&, const Int8Rows&, float*, int64_t) noexcept;
template void scalar_int8<quant::BlockIQ2_XXS>(const PackedGroups&, const Int8Rows&, float*, int64_t) noexcept;
template void scalar_int8<quant::BlockIQ2_XS>(const PackedGroups&, const Int8Rows&, float*, int64_t) noexcept;
template void scalar_int8<quant::BlockIQ2_S>(const PackedGroups&, const Int8Rows&, float*, int64_t) noexcept;
template void scalar_int8<quant::BlockIQ1_S>(const PackedGroups&, const Int8Rows&, float*, int64_t) noexcept;
template void scalar_int8<quant::BlockIQ1_M>(const PackedGroups&, const Int8Rows&, float*, int64_t) noexcept;

template <class Block>
void scalar_absorb(const PackedGroups& groups, const float* x, std::byte* /*scratch*/, float* out) noexcept {
  static_assert(kDots<Block> == 1 && kMinima<Block> <= 1);
  for (int64_t b = 0; b < groups.cols / kBlockColumns; ++b) absorb_block<Block>(groups, x, b, out);
}

template void scalar_absorb<quant::BlockQ8_0>(const PackedGroups&, const float*, std::byte*, float*) noexcept;
template void scalar_absorb<quant::BlockQ4_0>(const PackedGroups&, const float*, std::byte*, float*) noexcept;
template void scalar_absorb<quant::BlockQ4_K>(const PackedGroups&, const float*, std::byte*, float*) noexcept;

}  // namespace moraine::cpu

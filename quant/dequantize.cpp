#include "quant/dequantize.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "quant/dequantize_block.h"
#include "quant/error.h"
#include "quant/packed_matrix.h"
#include "quant/quantize.h"
#include "quant/visit_block_format.h"

namespace moraine::quant {
namespace {

/// 1 sign, 4 exponent (bias 7), 3 mantissa bits; no infinities, and only the all-ones patterns are NaN.
constexpr float decode_e4m3(uint8_t byte) {
  const int exponent = (byte >> 3) & 15;
  const int mantissa = byte & 7;
  if (exponent == 15 && mantissa == 7) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    return (byte & 0x80) != 0 ? -nan : nan;
  }
  float magnitude = static_cast<float>(exponent == 0 ? mantissa : mantissa + 8) * 0x1p-9f;
  for (int e = 1; e < exponent; ++e) magnitude *= 2.0f;
  return (byte & 0x80) != 0 ? -magnitude : magnitude;
}

constexpr std::array<float, 256> make_e4m3_table() {
  std::array<float, 256> table{};
  for (size_t i = 0; i < table.size(); ++i) table[i] = decode_e4m3(static_cast<uint8_t>(i));
  return table;
}
constexpr std::array<float, 256> kE4m3Table = make_e4m3_table();

template <typename Block>
void dequantize_blocks(std::span<const std::byte> blocks, std::span<float> out) {
  for (size_t i = 0; i < out.size() / Block::kElements; ++i) {
    Block block;
    std::memcpy(&block, blocks.data() + i * sizeof(Block), sizeof(Block));
    dequantize_block(block, out.data() + i * Block::kElements);
  }
}

template <typename Convert>
void widen_halves(std::span<const std::byte> halves, std::span<float> out, Convert convert) {
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t half;
    std::memcpy(&half, halves.data() + 2 * i, 2);
    out[i] = convert(half);
  }
}

}  // namespace

float f32_from_e4m3(uint8_t byte) {
  return kE4m3Table[byte];
}

float f32_from_f16(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = (half >> 10) & 31;
  const uint32_t mantissa = half & 0x3ff;
  if (exponent == 0) {  // zero and subnormals: mantissa units of 2^-24
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  const uint32_t widened = exponent == 31 ? 255 : exponent + (127 - 15);
  return std::bit_cast<float>(sign | (widened << 23) | (mantissa << 13));
}

uint16_t f16_from_f32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00 | ((magnitude >> 13) & 0x3ff));
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // 65520 and more round to infinity
  if (magnitude <
      0x38800000) {  // below 2^-14, the smallest normal f16: the sum's low bits are units of 2^-24, rounded by the FPU
    const float sum = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(sum) - std::bit_cast<uint32_t>(0.5f)));
  }
  const uint32_t rebiased = magnitude - ((127u - 15u) << 23);
  const uint32_t rounded = rebiased + 0xfff + ((rebiased >> 13) & 1);  // a carry moves into the exponent, as it should
  return static_cast<uint16_t>(sign | (rounded >> 13));
}

uint16_t bf16_from_f32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

void dequantize_row(DType type, std::span<const std::byte> blocks, std::span<float> out) {
  MORAINE_CHECK(blocks.size() == row_bytes(type, static_cast<int64_t>(out.size())));
  switch (type) {
    case DType::kF32:
      if (!out.empty()) std::memcpy(out.data(), blocks.data(), blocks.size());
      return;
    case DType::kF16:
      return widen_halves(blocks, out, f32_from_f16);
    case DType::kBF16:
      return widen_halves(blocks, out, f32_from_bf16);
    default:
      visit_block_format(
          type, [&]<typename Block>(Block) { dequantize_blocks<Block>(blocks, out); },
          [] { MORAINE_CHECK(!"a format that rows are stored in"); });
  }
}

void dequantize_fp8(std::span<const std::byte> e4m3, std::span<const float> scale_inv, int64_t rows, int64_t cols,
                    std::span<float> out) {
  MORAINE_CHECK(rows >= 0 && cols >= 0 && e4m3.size() == static_cast<size_t>(rows * cols) && out.size() == e4m3.size());
  const int64_t block_cols = (cols + kFp8Block - 1) / kFp8Block;
  const int64_t block_rows = (rows + kFp8Block - 1) / kFp8Block;
  MORAINE_CHECK(scale_inv.size() == static_cast<size_t>(block_rows * block_cols));
  for (int64_t r = 0; r < rows; ++r) {
    const float* scales = scale_inv.data() + r / kFp8Block * block_cols;  // [block_cols]
    const std::byte* source = e4m3.data() + r * cols;
    float* target = out.data() + r * cols;
    for (int64_t begin = 0; begin < cols; begin += kFp8Block) {
      const float scale = scales[begin / kFp8Block];
      const int64_t end = std::min(begin + kFp8Block, cols);
      for (int64_t c = begin; c < end; ++c) target[c] = kE4m3Table[static_cast<uint8_t>(source[c])] * scale;
    }
  }
}

}  // namespace moraine::quant

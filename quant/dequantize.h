#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "quant/dtype.h"

namespace moraine::quant {

/// Blocks of `type` (not F8_E4M3: see dequantize_fp8) → f32. Exact meaning, equal to the gguf package bit for bit.
void dequantize_row(DType type, std::span<const std::byte> blocks, std::span<float> out);

/// e4m3 bytes [rows, cols] × scale_inv [ceil(rows/128), ceil(cols/128)] → f32 [rows, cols].
void dequantize_fp8(std::span<const std::byte> e4m3, std::span<const float> scale_inv, int64_t rows, int64_t cols,
                    std::span<float> out);

/// The value of an e4m3fn byte (0x7f and 0xff: NaN).
float f32_from_e4m3(uint8_t byte);
float f32_from_f16(uint16_t half);
uint16_t f16_from_f32(float value);  // nearest even
inline float f32_from_bf16(uint16_t value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value) << 16);
}
uint16_t bf16_from_f32(float value);  // nearest even

}  // namespace moraine::quant

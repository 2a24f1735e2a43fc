#include "quant/dequantize_block.h"

#include "quant/block_codes.h"
#include "quant/dequantize.h"

namespace moraine::quant {
namespace {

/// out = d·(code − zero) + m over a block of 32.
template <typename Block>
void dequantize_32(const Block& block, int zero, float m, float* out) {
  uint8_t codes[32];
  read_codes(block, codes);
  const float d = f32_from_f16(block.d);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(codes[i] - zero) + m;
}

/// Q4_K and Q5_K: (d·scale)·code − (dmin·min) in groups of 32.
template <typename Block>
void dequantize_scale_min(const Block& block, float* out) {
  uint8_t codes[256];
  read_codes(block, codes);
  const float d = f32_from_f16(block.d);
  const float dmin = f32_from_f16(block.dmin);
  for (int b = 0; b < 8; ++b) {
    const ScaleMin group = q4_k_scale_min(block.scales, b);
    const float scale = d * static_cast<float>(group.scale);
    const float min = dmin * static_cast<float>(group.min);
    for (int i = 32 * b; i < 32 * b + 32; ++i) out[i] = scale * static_cast<float>(codes[i]) - min;
  }
}

}  // namespace

void dequantize_block(const BlockQ8_0& block, float* out) {
  const float d = f32_from_f16(block.d);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(block.q[i]);
}

// Without an offset, −0 is added: it leaves every number as it is, −0 too.
void dequantize_block(const BlockQ4_0& block, float* out) {
  dequantize_32(block, 8, -0.0f, out);
}

void dequantize_block(const BlockQ4_1& block, float* out) {
  dequantize_32(block, 0, f32_from_f16(block.m), out);
}

void dequantize_block(const BlockQ5_0& block, float* out) {
  dequantize_32(block, 16, -0.0f, out);
}

void dequantize_block(const BlockQ5_1& block, float* out) {
  dequantize_32(block, 0, f32_from_f16(block.m), out);
}

void dequantize_block(const BlockQ2_K& block, float* out) {
  uint8_t codes[256];
  read_codes(block, codes);
  const float d = f32_from_f16(block.d);
  const float dmin = f32_from_f16(block.dmin);
  for (int g = 0; g < 16; ++g) {
    const float scale = d * static_cast<float>(block.scales[g] & 15);
    const float min = dmin * static_cast<float>(block.scales[g] >> 4);
    for (int i = 16 * g; i < 16 * g + 16; ++i) out[i] = scale * static_cast<float>(codes[i]) - min;
  }
}

void dequantize_block(const BlockQ3_K& block, float* out) {
  uint8_t codes[256];
  read_codes(block, codes);
  const float d = f32_from_f16(block.d);
  for (int g = 0; g < 16; ++g) {
    const float scale = d * static_cast<float>(q3_k_scale(block.scales, g) - 32);
    for (int i = 16 * g; i < 16 * g + 16; ++i) out[i] = scale * static_cast<float>(codes[i] - 4);
  }
}

void dequantize_block(const BlockQ4_K& block, float* out) {
  dequantize_scale_min(block, out);
}

void dequantize_block(const BlockQ5_K& block, float* out) {
  dequantize_scale_min(block, out);
}

void dequantize_block(const BlockQ6_K& block, float* out) {
  uint8_t codes[256];
  read_codes(block, codes);
  const float d = f32_from_f16(block.d);
  for (int g = 0; g < 16; ++g) {
    const float scale = d * static_cast<float>(block.scales[g]);
    for (int i = 16 * g; i < 16 * g + 16; ++i) out[i] = scale * static_cast<float>(codes[i] - 32);
  }
}

void dequantize_block(const BlockIQ4_NL& block, float* out) {
  uint8_t codes[32];
  read_codes(block, codes);
  const float d = f32_from_f16(block.d);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(kIq4Values[codes[i]]);
}

void dequantize_block(const BlockIQ4_XS& block, float* out) {
  uint8_t codes[256];
  read_codes(block, codes);
  const float d = f32_from_f16(block.d);
  for (int b = 0; b < 8; ++b) {
    const float scale = d * static_cast<float>(iq4_xs_scale(block, b) - 32);
    for (int i = 32 * b; i < 32 * b + 32; ++i) out[i] = scale * static_cast<float>(kIq4Values[codes[i]]);
  }
}

}  // namespace moraine::quant

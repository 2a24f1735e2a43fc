#include <cstring>

#include "quant/dequantize.h"
#include "quant/dequantize_block.h"
#include "quant/iq_grids.h"

// The grid formats of dequantize_block.h.
namespace moraine::quant {
namespace {

/// out[i] = scale · (±byte i of `row`), negative where bit i of `signs` is set.
template <typename Row>
void signed_row(Row row, unsigned signs, float scale, float* out) {
  for (size_t i = 0; i < sizeof(Row); ++i) {
    const auto value = static_cast<float>(static_cast<int8_t>(row >> (8 * i)));
    out[i] = scale * ((signs >> i & 1) != 0 ? -value : value);
  }
}

/// out[i] = scale · (byte i of `row` + delta).
void shifted_row(uint64_t row, float delta, float scale, float* out) {
  for (size_t i = 0; i < 8; ++i) out[i] = scale * (static_cast<float>(static_cast<int8_t>(row >> (8 * i))) + delta);
}

uint32_t little_endian(const uint8_t bytes[4]) {
  uint32_t number;
  std::memcpy(&number, bytes, 4);
  return number;
}

/// Nibble `i` of consecutive bytes, low ones first.
int nibble(const uint8_t* bytes, int i) {
  return (bytes[i / 2] >> (4 * (i % 2))) & 15;
}

constexpr float kDelta = 0.125f;

}  // namespace

void dequantize_block(const BlockIQ3_XXS& block, float* out) {
  const float d = f32_from_f16(block.d);
  for (int octet = 0; octet < 32; ++octet) {
    const uint32_t bits = little_endian(block.signs_scale[octet / 4]);
    const float scale = d * (0.5f + static_cast<float>(bits >> 28)) * 0.5f;
    const unsigned signs = even_signs((bits >> (7 * (octet % 4))) & 127);
    signed_row(kIq3XxsGrid[block.rows[2 * octet]], signs, scale, out + 8 * octet);
    signed_row(kIq3XxsGrid[block.rows[2 * octet + 1]], signs >> 4, scale, out + 8 * octet + 4);
  }
}

void dequantize_block(const BlockIQ3_S& block, float* out) {
  const float d = f32_from_f16(block.d);
  for (int quad = 0; quad < 64; ++quad) {
    const int group = quad / 8;
    const auto row = static_cast<size_t>(block.rows[quad] | ((block.rows_high[group] >> (quad % 8)) & 1) << 8);
    const float scale = d * static_cast<float>(1 + 2 * nibble(block.scales, group));
    signed_row(kIq3SGrid[row], static_cast<unsigned>(nibble(block.signs, quad)), scale, out + 4 * quad);
  }
}

void dequantize_block(const BlockIQ2_XXS& block, float* out) {
  const float d = f32_from_f16(block.d);
  for (int octet = 0; octet < 32; ++octet) {
    const BlockIQ2_XXS::Group& group = block.groups[octet / 4];
    const uint32_t bits = little_endian(group.signs_scale);
    const float scale = d * (0.5f + static_cast<float>(bits >> 28)) * 0.25f;
    const unsigned signs = even_signs((bits >> (7 * (octet % 4))) & 127);
    signed_row(kIq2XxsGrid[group.rows[octet % 4]], signs, scale, out + 8 * octet);
  }
}

void dequantize_block(const BlockIQ2_XS& block, float* out) {
  const float d = f32_from_f16(block.d);
  for (int octet = 0; octet < 32; ++octet) {
    const unsigned bits = block.rows_signs[octet];
    const float scale = d * (0.5f + static_cast<float>(nibble(block.scales, octet / 2))) * 0.25f;
    signed_row(kIq2XsGrid[bits & 511], even_signs(bits >> 9), scale, out + 8 * octet);
  }
}

void dequantize_block(const BlockIQ2_S& block, float* out) {
  const float d = f32_from_f16(block.d);
  for (int octet = 0; octet < 32; ++octet) {
    const auto row =
        static_cast<size_t>(block.rows[octet] | ((block.rows_high[octet / 4] >> (2 * (octet % 4))) & 3) << 8);
    const float scale = d * (0.5f + static_cast<float>(nibble(block.scales, octet / 2))) * 0.25f;
    signed_row(kIq2SGrid[row], block.signs[octet], scale, out + 8 * octet);
  }
}

void dequantize_block(const BlockIQ1_S& block, float* out) {
  const float d = f32_from_f16(block.d);
  for (int octet = 0; octet < 32; ++octet) {
    const unsigned bits = block.rows_high_scale[octet / 4];
    const size_t row = block.rows[octet] | ((bits >> (3 * (octet % 4))) & 7) << 8;
    const float scale = d * static_cast<float>(2 * ((bits >> 12) & 7) + 1);
    shifted_row(kIq1SGrid[row], (bits & 0x8000) != 0 ? -kDelta : kDelta, scale, out + 8 * octet);
  }
}

void dequantize_block(const BlockIQ1_M& block, float* out) {
  const float d = f32_from_f16(iq1_m_d(block));
  for (int octet = 0; octet < 32; ++octet) {
    const int high = nibble(block.rows_high, octet);
    const auto row = static_cast<size_t>(block.rows[octet] | (high & 7) << 8);
    const int sixteen = octet / 2;
    const int scale_bits = (block.scales[sixteen / 4] >> (3 * (sixteen % 4))) & 7;
    const float scale = d * static_cast<float>(2 * scale_bits + 1);
    shifted_row(kIq1SGrid[row], (high & 8) != 0 ? -kDelta : kDelta, scale, out + 8 * octet);
  }
}

}  // namespace moraine::quant

#include "quant/quantize_signed.h"

#include "quant/quantize_block.h"

namespace moraine::quant {
namespace {

using namespace quantize_detail;

uint8_t iq4_code(float v) {
  return kNearestIq4[static_cast<size_t>(128 + static_cast<int>(round_small(clamp(v, -127.0f, 113.0f))))];
}

/// The scale of 32 elements in IQ4_NL, as SignedQuantizer::search() finds it for eight groups.
float search_iq4_scale(const float* x, float largest) {
  float best_gain = -1.0f;
  float best_scale = 0.0f;
  for (const float target : kIq4Targets) {
    const float inverse = target / largest;
    float qq = 0.0f, xq = 0.0f;
    for (int i = 0; i < 32; ++i) {
      const float q = kIq4Values[iq4_code(x[i] * inverse)];
      qq += q * q;
      xq += x[i] * q;
    }
    const float scale = xq / qq;  // no value is 0
    if (xq * scale > best_gain) {
      best_gain = xq * scale;
      best_scale = scale;
    }
  }
  return best_scale;
}

}  // namespace

bool quantize_block(const float* x, BlockQ3_K& block) {
  return quantize_widest<QuantizerQ3_K>(x, block);
}
bool quantize_block(const float* x, BlockQ6_K& block) {
  return quantize_widest<QuantizerQ6_K>(x, block);
}
bool quantize_block(const float* x, BlockIQ4_XS& block) {
  return quantize_widest<QuantizerIQ4_XS>(x, block);
}

bool quantize_block(const float* x, BlockIQ4_NL& block) {
  if (!(largest_magnitude(x, 32) <= 32.0f * kF16Max)) return false;
  const float largest = signed_max(x, 32);
  const float scale = std::abs(largest) < kNegligible ? 0.0f : search_iq4_scale(x, largest);
  if (std::abs(scale) < kFinelyRounded) {  // codes must make up for a coarse d
    block.d = f16_step(std::abs(largest), 127.0f);
    if (largest > 0.0f) block.d |= 0x8000;
  } else {
    block.d = f16_from_f32(scale);
  }
  const float inverse = reciprocal_or_zero(f32_from_f16(block.d));
  uint8_t codes[32];
  for (int i = 0; i < 32; ++i) codes[i] = iq4_code(x[i] * inverse);
  write_codes(codes, block);
  return true;
}

}  // namespace moraine::quant

#include "quant/quantize_block.h"

#include "quant/block_codes.h"
#include "quant/quantize_search.h"

// The formats of 32 weights with f16 scales.
namespace moraine::quant {
namespace {

using namespace quantize_detail;

/// Candidate scales of a Q4_0 block, as the code that the largest element would get: from clipping it hard to leaving
/// room. Negative targets put it on the side with 8 steps, positive ones on the side with 7.
constexpr std::array<float, 24> kQ4_0Targets = {-9.4f, -9.0f, -8.7f, -8.4f, -8.2f, -8.0f, -7.8f, -7.6f,
                                                -7.4f, -7.2f, -7.0f, -6.8f, 8.6f,  8.2f,  7.9f,  7.6f,
                                                7.4f,  7.2f,  7.0f,  6.8f,  6.6f,  6.4f,  6.2f,  6.0f};
constexpr std::array<float, 16> kQ5_0Targets = {-17.2f, -16.8f, -16.4f, -16.1f, -15.8f, -15.5f, -15.2f, -14.8f,
                                                16.2f,  15.8f,  15.4f,  15.1f,  14.8f,  14.5f,  14.2f,  13.8f};

/// The same for the code of the largest element above the smallest.
constexpr std::array<float, 24> kQ4_1Targets = {13.6f, 13.8f, 14.0f, 14.2f, 14.4f, 14.6f, 14.8f, 15.0f,
                                                15.1f, 15.2f, 15.3f, 15.4f, 15.5f, 15.6f, 15.7f, 15.8f,
                                                15.9f, 16.0f, 16.2f, 16.4f, 16.6f, 16.8f, 17.1f, 17.4f};
constexpr std::array<float, 16> kQ5_1Targets = {29.4f, 29.8f, 30.2f, 30.5f, 30.7f, 30.9f, 31.0f, 31.1f,
                                                31.2f, 31.4f, 31.6f, 31.8f, 32.0f, 32.3f, 32.6f, 33.0f};

/// x ≈ d·(code − zero), codes 0 … 2·zero − 1.
template <typename Block, size_t K>
bool quantize_symmetric(const float* x, const std::array<float, K>& targets, int zero, Block& block) {
  const auto low = static_cast<float>(-zero);
  const auto high = static_cast<float>(zero - 1);
  if (!(largest_magnitude(x, 32) <= high * kF16Max)) return false;
  const float largest = signed_max(x, 32);
  block.d = f16_from_f32(std::abs(largest) < kNegligible ? 0.0f : search_scale<32>(x, largest, targets, low, high));
  const float inverse = reciprocal_or_zero(f32_from_f16(block.d));
  uint8_t codes[32];
  for (int i = 0; i < 32; ++i) {
    codes[i] = static_cast<uint8_t>(zero + static_cast<int>(round_small(clamp(x[i] * inverse, low, high))));
  }
  write_codes(codes, block);
  return true;
}

/// x ≈ d·code + m.
template <typename Block, size_t K>
bool quantize_affine(const float* x, const std::array<float, K>& targets, float max_code, Block& block) {
  if (!(largest_magnitude(x, 32) <= kF16Max)) return false;
  const Affine fit = search_affine<32>(x, targets, max_code);
  block.d = f16_from_f32(fit.scale);
  block.m = f16_from_f32(clamp(-fit.min, -kF16Max, kF16Max));
  const float inverse = reciprocal_or_zero(f32_from_f16(block.d));
  const float m = f32_from_f16(block.m);
  uint8_t codes[32];
  for (int i = 0; i < 32; ++i) {
    codes[i] = static_cast<uint8_t>(round_small(clamp((x[i] - m) * inverse, 0.0f, max_code)));
  }
  write_codes(codes, block);
  return true;
}

}  // namespace

bool quantize_block(const float* x, BlockQ8_0& block) {
  const float largest = largest_magnitude(x, 32);
  if (!(largest / 127.0f <= kF16Max)) return false;
  block.d = f16_step(largest, 127.0f);
  const float inverse = reciprocal_or_zero(f32_from_f16(block.d));
  std::array<int32_t, 32> codes;
  for (size_t i = 0; i < 32; i += kLanes) {
    Lanes values;
    std::memcpy(&values, x + i, sizeof(values));
    // Clamped, since d may have been rounded down.
    const Lanes q = nearest_code(values * broadcast(inverse), broadcast(-127.0f), broadcast(127.0f));
    for (size_t lane = 0; lane < kLanes; ++lane) codes[i + lane] = static_cast<int32_t>(q[lane]);
  }
  for (size_t i = 0; i < 32; ++i) block.q[i] = static_cast<int8_t>(codes[i]);
  return true;
}

bool quantize_block(const float* x, BlockQ4_0& block) {
  return quantize_symmetric(x, kQ4_0Targets, 8, block);
}

bool quantize_block(const float* x, BlockQ5_0& block) {
  return quantize_symmetric(x, kQ5_0Targets, 16, block);
}

bool quantize_block(const float* x, BlockQ4_1& block) {
  return quantize_affine(x, kQ4_1Targets, 15.0f, block);
}

bool quantize_block(const float* x, BlockQ5_1& block) {
  return quantize_affine(x, kQ5_1Targets, 31.0f, block);
}

}  // namespace moraine::quant

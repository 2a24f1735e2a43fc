#include "quant/block_codes.h"
#include "quant/quantize_block.h"
#include "quant/quantize_search.h"

// Formats whose groups have a signed scale and no minimum: Q3_K, Q6_K, and with codes that stand for kIq4Values IQ4_NL
// and IQ4_XS.
namespace moraine::quant {
namespace {

using namespace quantize_detail;

/// Candidates for the code of a group's largest element; negative: on the side that has one step more.
constexpr std::array<float, 24> kQ3_KTargets = {-5.0f, -4.8f, -4.6f, -4.4f, -4.3f, -4.2f, -4.1f, -4.0f,
                                                -3.9f, -3.8f, -3.6f, -3.4f, -3.2f, 4.2f,  3.9f,  3.7f,
                                                3.5f,  3.4f,  3.3f,  3.2f,  3.1f,  3.0f,  2.8f,  2.6f};
constexpr std::array<float, 16> kQ6_KTargets = {-33.4f, -33.0f, -32.6f, -32.3f, -32.0f, -31.7f, -31.4f, -31.0f,
                                                32.2f,  31.8f,  31.5f,  31.2f,  31.0f,  30.7f,  30.4f,  30.0f};
/// The same as values of kIq4Values.
constexpr std::array<float, 16> kIq4Targets = {-146.0f, -140.0f, -134.0f, -129.0f, -125.0f, -121.0f, -117.0f, -112.0f,
                                               128.0f,  122.0f,  118.0f,  114.0f,  111.0f,  107.0f,  103.0f,  98.0f};

/// Evenly spaced codes kLow … kHigh, groups of 16.
template <int kLowest, int kHighest>
struct EvenCodes {
  static constexpr int kGroup = 16;

  template <size_t K>
  static float search(const float* x, float largest, const std::array<float, K>& targets) {
    return search_scale<kGroup>(x, largest, targets, kLowest, kHighest);
  }
  static float nearest(float v) { return round_small(clamp(v, kLowest, kHighest)); }
  /// The number that write_codes() wants for value `v`.
  static uint8_t stored(float v) { return static_cast<uint8_t>(static_cast<int>(v) - kLowest); }
};

/// kNearestIq4[128 + v]: the code whose value is nearest to the integer v.
constexpr std::array<uint8_t, 256> make_nearest_iq4() {
  std::array<uint8_t, 256> table{};
  for (int v = -128; v < 128; ++v) {
    int best = 0;
    for (int code = 1; code < 16; ++code) {
      const int distance = v > kIq4Values[code] ? v - kIq4Values[code] : kIq4Values[code] - v;
      const int best_distance = v > kIq4Values[best] ? v - kIq4Values[best] : kIq4Values[best] - v;
      if (distance < best_distance) best = code;
    }
    table[static_cast<size_t>(v + 128)] = static_cast<uint8_t>(best);
  }
  return table;
}
constexpr std::array<uint8_t, 256> kNearestIq4 = make_nearest_iq4();

/// Codes that stand for kIq4Values, groups of 32.
struct Iq4Codes {
  static constexpr int kGroup = 32;

  static uint8_t code(float v) {
    return kNearestIq4[static_cast<size_t>(128 + static_cast<int>(round_small(clamp(v, -127.0f, 113.0f))))];
  }
  static float nearest(float v) { return kIq4Values[code(v)]; }
  static uint8_t stored(float v) { return code(v); }

  /// As search_scale().
  template <size_t K>
  static float search(const float* x, float largest, const std::array<float, K>& targets) {
    float best_gain = -1.0f;
    float best_scale = 0.0f;
    for (const float target : targets) {
      const float inverse = target / largest;
      float qq = 0.0f, xq = 0.0f;
      for (int i = 0; i < kGroup; ++i) {
        const float q = nearest(x[i] * inverse);
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
};

/// The squared error of a group with its nearest codes.
template <class Codes>
float group_error(const float* x, float scale) {
  const float inverse = reciprocal_or_zero(scale);
  float error = 0.0f;
  for (int i = 0; i < Codes::kGroup; ++i) {
    const float difference = x[i] - scale * Codes::nearest(x[i] * inverse);
    error += difference * difference;
  }
  return error;
}

/// Steps around the nearest scale that are tried; with `mirror` around the scale of the other sign too, whose codes
/// reach one step further on the other side.
template <class Codes>
int best_scale(const float* x, float wanted, float d, int lowest, int highest, bool mirror) {
  const int guess = static_cast<int>(
      round_small(clamp(wanted * reciprocal_or_zero(d), static_cast<float>(lowest), static_cast<float>(highest))));
  int best = guess;
  float least = group_error<Codes>(x, d * static_cast<float>(guess));
  const auto attempt = [&](int scale) {
    if (scale < lowest || scale > highest) return;
    const float error = group_error<Codes>(x, d * static_cast<float>(scale));
    if (error < least) {
      least = error;
      best = scale;
    }
  };
  attempt(guess - 1);
  attempt(guess + 1);
  if (mirror) {
    for (int step = -1; step <= 1; ++step) attempt(-guess + step);
  }
  return best;
}

/// A super-block's `scales` [256 / kGroup] in lowest … highest, d and codes; false if x can't be represented.
template <class Codes, typename Block, size_t K>
bool quantize_super(const float* x, const std::array<float, K>& targets, int lowest, int highest, bool mirror,
                    Block& block, int* scales) {
  if (!(largest_magnitude(x, 256) <= 32.0f * kF16Max)) return false;
  constexpr int kGroups = 256 / Codes::kGroup;
  float wanted[kGroups];
  for (int g = 0; g < kGroups; ++g) {
    const float* group = x + Codes::kGroup * g;
    const float largest = signed_max(group, Codes::kGroup);
    wanted[g] = std::abs(largest) < kNegligible ? 0.0f : Codes::search(group, largest, targets);
  }
  // The largest scale gets the end of the range that reaches further.
  const float largest_scale = signed_max(wanted, kGroups);
  block.d = f16_step(std::abs(largest_scale), static_cast<float>(-lowest));
  if (largest_scale > 0.0f) block.d |= 0x8000;
  constexpr int kRounds = 2;
  float d = f32_from_f16(block.d);
  for (int round = 0; round < kRounds; ++round) {
    double uu = 0, xu = 0;
    for (int g = 0; g < kGroups; ++g) {
      const float* group = x + Codes::kGroup * g;
      scales[g] = best_scale<Codes>(group, wanted[g], d, lowest, highest, mirror);
      const float inverse = reciprocal_or_zero(d * static_cast<float>(scales[g]));
      float qq = 0, xq = 0;
      for (int i = 0; i < Codes::kGroup; ++i) {
        const float q = Codes::nearest(group[i] * inverse);
        qq += q * q;
        xq += group[i] * q;
      }
      uu += static_cast<double>(scales[g]) * scales[g] * static_cast<double>(qq);
      xu += static_cast<double>(scales[g]) * static_cast<double>(xq);
    }
    if (uu == 0 || std::abs(d) < kFinelyRounded) break;
    block.d = f16_from_f32(clamp(static_cast<float>(xu / uu), -kF16Max, kF16Max));
    d = f32_from_f16(block.d);
  }
  uint8_t codes[256];
  for (int i = 0; i < 256; ++i) {
    const float inverse = reciprocal_or_zero(d * static_cast<float>(scales[i / Codes::kGroup]));
    codes[i] = Codes::stored(Codes::nearest(x[i] * inverse));
  }
  write_codes(codes, block);
  return true;
}

}  // namespace

bool quantize_block(const float* x, BlockQ3_K& block) {
  int scales[16];
  if (!quantize_super<EvenCodes<-4, 3>>(x, kQ3_KTargets, -32, 31, true, block, scales)) return false;
  uint8_t stored[16];
  for (int g = 0; g < 16; ++g) stored[g] = static_cast<uint8_t>(scales[g] + 32);
  q3_k_store_scales(stored, block.scales);
  return true;
}

bool quantize_block(const float* x, BlockQ6_K& block) {
  int scales[16];
  if (!quantize_super<EvenCodes<-32, 31>>(x, kQ6_KTargets, -128, 127, false, block, scales)) return false;
  for (int g = 0; g < 16; ++g) block.scales[g] = static_cast<int8_t>(scales[g]);
  return true;
}

bool quantize_block(const float* x, BlockIQ4_NL& block) {
  if (!(largest_magnitude(x, 32) <= 32.0f * kF16Max)) return false;
  const float largest = signed_max(x, 32);
  const float scale = std::abs(largest) < kNegligible ? 0.0f : Iq4Codes::search(x, largest, kIq4Targets);
  if (std::abs(scale) < kFinelyRounded) {  // codes must make up for a coarse d
    block.d = f16_step(std::abs(largest), 127.0f);
    if (largest > 0.0f) block.d |= 0x8000;
  } else {
    block.d = f16_from_f32(scale);
  }
  const float inverse = reciprocal_or_zero(f32_from_f16(block.d));
  uint8_t codes[32];
  for (int i = 0; i < 32; ++i) codes[i] = Iq4Codes::code(x[i] * inverse);
  write_codes(codes, block);
  return true;
}

bool quantize_block(const float* x, BlockIQ4_XS& block) {
  int scales[8];
  if (!quantize_super<Iq4Codes>(x, kIq4Targets, -32, 31, true, block, scales)) return false;
  uint8_t stored[8];
  for (int b = 0; b < 8; ++b) stored[b] = static_cast<uint8_t>(scales[b] + 32);
  iq4_xs_store_scales(stored, block);
  return true;
}

}  // namespace moraine::quant

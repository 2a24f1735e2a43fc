#pragma once

#include <cmath>
#include <limits>

#include "quant/block_codes.h"
#include "quant/block_formats.h"
#include "quant/quantize_lanes.h"
#include "quant/quantize_search.h"

/// Super-blocks whose groups have a signed scale and no minimum: Q3_K, Q6_K, and IQ4_XS, whose codes stand for
/// kIq4Values.
namespace moraine::quant::quantize_detail {

/// Candidates for the code of a group's largest element; negative: on the side that has one step more.
constexpr std::array<float, 24> kQ3_KTargets = {-5.0f, -4.8f, -4.6f, -4.4f, -4.3f, -4.2f, -4.1f, -4.0f,
                                                -3.9f, -3.8f, -3.6f, -3.4f, -3.2f, 4.2f,  3.9f,  3.7f,
                                                3.5f,  3.4f,  3.3f,  3.2f,  3.1f,  3.0f,  2.8f,  2.6f};
constexpr std::array<float, 16> kQ6_KTargets = {-33.4f, -33.0f, -32.6f, -32.3f, -32.0f, -31.7f, -31.4f, -31.0f,
                                                32.2f,  31.8f,  31.5f,  31.2f,  31.0f,  30.7f,  30.4f,  30.0f};
/// The same as values of kIq4Values.
constexpr std::array<float, 16> kIq4Targets = {-146.0f, -140.0f, -134.0f, -129.0f, -125.0f, -121.0f, -117.0f, -112.0f,
                                               128.0f,  122.0f,  118.0f,  114.0f,  111.0f,  107.0f,  103.0f,  98.0f};

/// Evenly spaced codes kLowest … kHighest, groups of 16.
template <int kLowest, int kHighest>
struct EvenCodes {
  static constexpr int kGroup = 16;

  /// Each lane becomes the nearest value that a code stands for.
  MORAINE_LANES static void nearest(GroupLanes& v) {
    clamp_lanes(v, kLowest, kHighest);
    round_lanes(v);
  }
  /// The numbers that write_codes() wants for such values.
  MORAINE_LANES static void to_stored(GroupLanes& v) { v = v - static_cast<float>(kLowest); }
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
inline constexpr std::array<uint8_t, 256> kNearestIq4 = make_nearest_iq4();

/// kNearestIq4Value[128 + v]: that value.
constexpr std::array<float, 256> make_nearest_iq4_value() {
  std::array<float, 256> table{};
  for (size_t i = 0; i < 256; ++i) table[i] = kIq4Values[kNearestIq4[i]];
  return table;
}
inline constexpr std::array<float, 256> kNearestIq4Value = make_nearest_iq4_value();

/// Codes that stand for kIq4Values, groups of 32.
struct Iq4Codes {
  static constexpr int kGroup = 32;

  MORAINE_LANES static void nearest(GroupLanes& v) {
    clamp_lanes(v, -127.0f, 113.0f);
    round_lanes(v);
    // The mask: a group of zeros is searched beside the others, and what it gets is NaN, which nobody looks at.
    const LaneMask index = (__builtin_convertvector(v, LaneMask) + 128) & 255;
    for (int lane = 0; lane < kGroupLanes; ++lane) v[lane] = kNearestIq4Value[static_cast<size_t>(index[lane])];
  }
  MORAINE_LANES static void to_stored(GroupLanes& v) {
    const LaneMask index = __builtin_convertvector(v, LaneMask) + 128;
    for (int lane = 0; lane < kGroupLanes; ++lane) v[lane] = kNearestIq4[static_cast<size_t>(index[lane])];
  }
};

/// A super-block with small scales kLowest … kHighest in units of d. `kMirror`: scales of the other sign, whose codes
/// reach one step further on the other side, are tried too.
template <class Codes, int kLowest, int kHighest, bool kMirror, const auto& kTargets>
struct SignedQuantizer {
  static constexpr int kGroup = Codes::kGroup;
  static constexpr int kGroups = 256 / kGroup;
  static constexpr int kHalves = kGroups / kGroupLanes;
  using Block256 = TransposedBlock<kGroups, kGroup>;

  /// Sums over a group's values q of one candidate.
  struct Sums {
    GroupLanes qq{}, xq{};

    MORAINE_LANES void add_element(const GroupLanes& value, const GroupLanes& inverse) {
      GroupLanes q = value * inverse;
      Codes::nearest(q);
      qq += q * q;
      xq += value * q;
    }
  };

  /// With values q fixed, the best scale is Σxq / Σqq and lowers the squared error by (Σxq)² / Σqq.
  MORAINE_LANES static void take_if_better(const Sums& sums, GroupLanes& gain, GroupLanes& scale) {
    const GroupLanes new_scale = sums.xq / sums.qq;
    const GroupLanes new_gain = sums.xq * new_scale;
    const LaneMask better = new_gain > gain;
    gain = better ? new_gain : gain;
    scale = better ? new_scale : scale;
  }

  /// The scales of eight groups, x [kGroup], that lower the squared error most, among the candidates. Candidate k gives
  /// the largest element the value kTargets[k].
  MORAINE_LANES static void search(const GroupLanes* x, GroupLanes& scale) {
    const GroupLanes zeros{};
    GroupLanes low{}, high{};
    for (int i = 0; i < kGroup; ++i) {
      low = x[i] < low ? x[i] : low;
      high = x[i] > high ? x[i] : high;
    }
    const GroupLanes largest = high >= -low ? high : low, magnitude = high >= -low ? high : -low;
    GroupLanes gain, best{}, negligible;
    set_all(gain, -1.0f);
    set_all(negligible, kNegligible);
    for (size_t k = 0; k < kTargets.size(); k += 2) {  // two at a time, to hide the latency of the additions
      const GroupLanes inverse = kTargets[k] / largest, next_inverse = kTargets[k + 1] / largest;
      Sums sums, next_sums;
      for (int i = 0; i < kGroup; ++i) {
        sums.add_element(x[i], inverse);
        next_sums.add_element(x[i], next_inverse);
      }
      take_if_better(sums, gain, best);
      take_if_better(next_sums, gain, best);
    }
    scale = magnitude < negligible ? zeros : best;
  }

  /// Of eight groups: the scale `small` · d if it lies in the range and its squared error is less than `least`.
  MORAINE_LANES static void attempt(const GroupLanes* x, float d, const GroupLanes& small, GroupLanes& least,
                                    GroupLanes& best) {
    GroupLanes lowest, highest, inverse, error{};
    set_all(lowest, kLowest);
    set_all(highest, kHighest);
    const GroupLanes scale = d * small;
    invert_lanes(scale, inverse);
    for (int i = 0; i < kGroup; ++i) {
      GroupLanes q = x[i] * inverse;
      Codes::nearest(q);
      const GroupLanes difference = x[i] - scale * q;
      error += difference * difference;
    }
    const LaneMask better = (small >= lowest) & (small <= highest) & (error < least);
    least = better ? error : least;
    best = better ? small : best;
  }

  /// For eight groups the best scale in units of d around the nearest to `wanted`.
  MORAINE_LANES static void choose_scale(const GroupLanes* x, const GroupLanes& wanted, float d, GroupLanes& best) {
    GroupLanes guess = wanted * reciprocal_or_zero(d), least;
    clamp_lanes(guess, kLowest, kHighest);
    round_lanes(guess);
    set_all(least, std::numeric_limits<float>::infinity());
    best = guess;
    constexpr float kSteps[3] = {0.0f, -1.0f, 1.0f}, kMirrorSteps[3] = {-1.0f, 0.0f, 1.0f};
    for (const float step : kSteps) attempt(x, d, guess + step, least, best);
    if constexpr (kMirror) {
      for (const float step : kMirrorSteps) attempt(x, d, step - guess, least, best);
    }
  }

  /// With codes and small scales fixed, d by least squares over the whole block; false if there is no such d.
  MORAINE_LANES static bool fit_d(const Block256& block, const GroupLanes (&scales)[kHalves], float& d) {
    float scale[kGroups], sum_qq[kGroups], sum_xq[kGroups];
    for (int h = 0; h < kHalves; ++h) {
      GroupLanes inverse;
      invert_lanes(d * scales[h], inverse);
      Sums sums;
      for (int i = 0; i < kGroup; ++i) sums.add_element(block.x[h][i], inverse);
      std::memcpy(scale + h * kGroupLanes, &scales[h], sizeof(GroupLanes));
      std::memcpy(sum_qq + h * kGroupLanes, &sums.qq, sizeof(GroupLanes));
      std::memcpy(sum_xq + h * kGroupLanes, &sums.xq, sizeof(GroupLanes));
    }
    double uu = 0, xu = 0;
    for (int g = 0; g < kGroups; ++g) {
      uu += static_cast<double>(scale[g]) * scale[g] * static_cast<double>(sum_qq[g]);
      xu += static_cast<double>(scale[g]) * static_cast<double>(sum_xq[g]);
    }
    if (uu == 0 || std::abs(d) < kFinelyRounded) return false;
    d = static_cast<float>(xu / uu);
    return true;
  }

  /// x [256] → `block`; false if x can't be represented.
  template <typename Block>
  MORAINE_LANES static bool quantize(const float* values, Block& block) {
    if (!(largest_magnitude(values, 256) <= 32.0f * kF16Max)) return false;
    const Block256 x(values);
    GroupLanes wanted[kHalves], scales[kHalves];
    for (int h = 0; h < kHalves; ++h) search(x.x[h], wanted[h]);
    float scale_list[kGroups];
    std::memcpy(scale_list, wanted, sizeof(wanted));
    // The largest scale gets the end of the range that reaches further.
    const float largest_scale = signed_max(scale_list, kGroups);
    block.d = f16_step(std::abs(largest_scale), static_cast<float>(-kLowest));
    if (largest_scale > 0.0f) block.d |= 0x8000;
    constexpr int kRounds = 2;
    float d = f32_from_f16(block.d);
    for (int round = 0; round < kRounds; ++round) {
      for (int h = 0; h < kHalves; ++h) choose_scale(x.x[h], wanted[h], d, scales[h]);
      float fitted = d;
      if (!fit_d(x, scales, fitted)) break;
      block.d = f16_from_f32(clamp(fitted, -kF16Max, kF16Max));
      d = f32_from_f16(block.d);
    }
    GroupLanes codes[kHalves][kGroup];
    for (int h = 0; h < kHalves; ++h) {
      GroupLanes inverse;
      invert_lanes(d * scales[h], inverse);
      for (int i = 0; i < kGroup; ++i) {
        codes[h][i] = x.x[h][i] * inverse;
        Codes::nearest(codes[h][i]);
        Codes::to_stored(codes[h][i]);
      }
    }
    uint8_t bytes[256];
    store_transposed(codes, bytes);
    write_codes(bytes, block);
    std::memcpy(scale_list, scales, sizeof(scales));
    store_scales(scale_list, block);
    return true;
  }

  MORAINE_LANES static void store_scales(const float* scales, BlockQ6_K& block) {
    for (int g = 0; g < 16; ++g) block.scales[g] = static_cast<int8_t>(scales[g]);
  }
  MORAINE_LANES static void store_scales(const float* scales, BlockQ3_K& block) {
    uint8_t stored[16];
    for (int g = 0; g < 16; ++g) stored[g] = static_cast<uint8_t>(scales[g] + 32.0f);
    q3_k_store_scales(stored, block.scales);
  }
  MORAINE_LANES static void store_scales(const float* scales, BlockIQ4_XS& block) {
    uint8_t stored[8];
    for (int b = 0; b < 8; ++b) stored[b] = static_cast<uint8_t>(scales[b] + 32.0f);
    iq4_xs_store_scales(stored, block);
  }
};

using QuantizerQ3_K = SignedQuantizer<EvenCodes<-4, 3>, -32, 31, true, kQ3_KTargets>;
using QuantizerQ6_K = SignedQuantizer<EvenCodes<-32, 31>, -128, 127, false, kQ6_KTargets>;
using QuantizerIQ4_XS = SignedQuantizer<Iq4Codes, -32, 31, true, kIq4Targets>;

}  // namespace moraine::quant::quantize_detail

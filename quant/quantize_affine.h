#pragma once

#include <algorithm>
#include <limits>

#include "quant/block_codes.h"
#include "quant/block_formats.h"
#include "quant/quantize_lanes.h"
#include "quant/quantize_search.h"

/// Super-blocks whose groups have a scale and a minimum: Q2_K, Q4_K, Q5_K.
namespace moraine::quant::quantize_detail {

/// Candidates for the code of a group's largest element above its smallest: from room above to hard clipping.
constexpr std::array<float, 24> kQ2_KTargets = {2.0f, 2.1f, 2.2f, 2.3f, 2.4f, 2.5f, 2.6f, 2.7f, 2.8f, 2.9f, 3.0f, 3.1f,
                                                3.2f, 3.3f, 3.4f, 3.5f, 3.6f, 3.7f, 3.8f, 3.9f, 4.0f, 4.2f, 4.4f, 4.6f};
constexpr std::array<float, 24> kQ4_KTargets = {13.6f, 13.8f, 14.0f, 14.2f, 14.4f, 14.6f, 14.8f, 15.0f,
                                                15.1f, 15.2f, 15.3f, 15.4f, 15.5f, 15.6f, 15.7f, 15.8f,
                                                15.9f, 16.0f, 16.2f, 16.4f, 16.6f, 16.8f, 17.1f, 17.4f};
constexpr std::array<float, 16> kQ5_KTargets = {29.4f, 29.8f, 30.2f, 30.5f, 30.7f, 30.9f, 31.0f, 31.1f,
                                                31.2f, 31.4f, 31.6f, 31.8f, 32.0f, 32.3f, 32.6f, 33.0f};

/// Steps around a group's first guess of scale and minimum that are tried. A larger scale goes with a larger minimum,
/// so the pair that moves them furthest apart is left out.
constexpr float kNeighbours[8][2] = {{0, 0}, {1, 1}, {-1, -1}, {1, 0}, {-1, 0}, {0, 1}, {0, -1}, {-1, 1}};

/// A super-block of `kGroup` weights per group, codes 0 … kMaxCode, scales and minima 0 … kMaxScale in units of d and
/// dmin. Each round looks at the neighbouring pairs of scale and minimum and then fits d and dmin.
template <int kGroup, int kMaxCode, int kMaxScale, int kRounds, const auto& kTargets>
struct AffineQuantizer {
  static constexpr int kGroups = 256 / kGroup;
  static constexpr int kHalves = kGroups / kGroupLanes;
  using Block256 = TransposedBlock<kGroups, kGroup>;

  /// A number of each group.
  struct PerGroup {
    GroupLanes lanes[kHalves];

    MORAINE_LANES void store(float* to) const { std::memcpy(to, lanes, sizeof(lanes)); }
  };

  /// Sums over a group's codes q of one candidate.
  struct Sums {
    GroupLanes q{}, qq{}, xq{};
  };

  /// Adds element `value`, which lies `offset` above the group's smallest. Neither that nor `inverse` is negative:
  /// there is nothing to clamp below.
  MORAINE_LANES static void add_element(const GroupLanes& value, const GroupLanes& offset, const GroupLanes& inverse,
                                        Sums& sums) {
    GroupLanes q = offset * inverse, highs;
    set_all(highs, kMaxCode);
    q = q > highs ? highs : q;
    round_lanes(q);
    sums.q += q;
    sums.qq += q * q;
    sums.xq += value * q;
  }

  /// The better one of the best affine code x ≈ scale·code − min so far and the linear regression on a candidate's
  /// codes. `gain`: Σx² less the squared error, at a least-squares fit.
  MORAINE_LANES static void take_if_better(const Sums& sums, const GroupLanes& sum_x, GroupLanes& gain,
                                           GroupLanes& scale, GroupLanes& min) {
    constexpr auto kCount = static_cast<float>(kGroup);
    const GroupLanes zeros{};
    const GroupLanes determinant = kCount * sums.qq - sums.q * sums.q;
    const GroupLanes fitted_min = (sums.q * sums.xq - sums.qq * sum_x) / determinant;
    const LaneMask has_min = (determinant > zeros) & (fitted_min > zeros);
    const GroupLanes new_scale = has_min ? (kCount * sums.xq - sums.q * sum_x) / determinant : sums.xq / sums.qq;
    const GroupLanes new_min = has_min ? fitted_min : zeros;
    const GroupLanes new_gain = new_scale * sums.xq - new_min * sum_x;
    const LaneMask better = (new_gain > gain) & (new_scale >= zeros);
    gain = better ? new_gain : gain;
    scale = better ? new_scale : scale;
    min = better ? new_min : min;
  }

  /// The affine codes of least squared error of eight groups, x [kGroup], among the candidates. Candidate k gives the
  /// largest element above the smallest the code kTargets[k].
  MORAINE_LANES static void search(const GroupLanes* x, GroupLanes& scale, GroupLanes& min) {
    GroupLanes low{}, high = x[0], sum_x{};  // a minimum can't be negative: 0 lies in the range
    for (int i = 0; i < kGroup; ++i) {
      low = x[i] < low ? x[i] : low;
      high = x[i] > high ? x[i] : high;
      sum_x += x[i];
    }
    const GroupLanes range = high - low, zeros{};
    GroupLanes offsets[kGroup];
    for (int i = 0; i < kGroup; ++i) offsets[i] = x[i] - low;
    GroupLanes gain, best_scale{}, best_min{};
    set_all(gain, -1.0f);
    for (size_t k = 0; k < kTargets.size(); k += 2) {  // two at a time, to hide the latency of the additions
      const GroupLanes inverse = kTargets[k] / range, next_inverse = kTargets[k + 1] / range;
      Sums sums, next_sums;
      for (int i = 0; i < kGroup; ++i) {
        add_element(x[i], offsets[i], inverse, sums);
        add_element(x[i], offsets[i], next_inverse, next_sums);
      }
      take_if_better(sums, sum_x, gain, best_scale, best_min);
      take_if_better(next_sums, sum_x, gain, best_scale, best_min);
    }
    GroupLanes negligible;
    set_all(negligible, kNegligible);
    const LaneMask is_flat = range < negligible;
    scale = is_flat ? zeros : best_scale;
    min = is_flat ? -low : best_min;
  }

  /// A pair of scale and minimum in units of d and dmin, one step away from a guess, and its squared error.
  struct Units {
    GroupLanes small_scale, small_min, scale, inverse, min, error{};

    MORAINE_LANES Units(const GroupLanes& scale_guess, const GroupLanes& min_guess, const float (&step)[2], float d,
                        float dmin)
        : small_scale(scale_guess + step[0]), small_min(min_guess + step[1]) {
      clamp_lanes(small_scale, 0, kMaxScale);
      clamp_lanes(small_min, 0, kMaxScale);
      scale = d * small_scale;
      min = dmin * small_min;
      invert_lanes(scale, inverse);
    }
    MORAINE_LANES void add_error(const GroupLanes& value) {
      GroupLanes q = (value + min) * inverse;
      clamp_lanes(q, 0, kMaxCode);
      round_lanes(q);
      const GroupLanes difference = scale * q - min - value;
      error += difference * difference;
    }
    MORAINE_LANES void take_if_better(GroupLanes& least, GroupLanes& best_scale, GroupLanes& best_min) const {
      const LaneMask better = error < least;
      least = better ? error : least;
      best_scale = better ? small_scale : best_scale;
      best_min = better ? small_min : best_min;
    }
  };

  /// For eight groups the best neighbour of the nearest first guess of `scale` and `min`, which are left in units of d
  /// and dmin, by the squared error that decoding will have: rounding scale and minimum one by one is not the best
  /// pair.
  MORAINE_LANES static void choose_units(const GroupLanes* x, float d, float dmin, GroupLanes& scale, GroupLanes& min) {
    GroupLanes scale_guess = scale * reciprocal_or_zero(d), min_guess = min * reciprocal_or_zero(dmin);
    clamp_lanes(scale_guess, 0, kMaxScale);
    clamp_lanes(min_guess, 0, kMaxScale);
    round_lanes(scale_guess);
    round_lanes(min_guess);
    GroupLanes least;
    set_all(least, std::numeric_limits<float>::infinity());
    for (int k = 0; k < 8; k += 2) {  // two at a time, to hide the latency of the additions
      Units units(scale_guess, min_guess, kNeighbours[k], d, dmin);
      Units next_units(scale_guess, min_guess, kNeighbours[k + 1], d, dmin);
      for (int i = 0; i < kGroup; ++i) {
        units.add_error(x[i]);
        next_units.add_error(x[i]);
      }
      units.take_if_better(least, scale, min);
      next_units.take_if_better(least, scale, min);
    }
  }

  /// codes [kGroup] of eight groups, the nearest for these scales.
  MORAINE_LANES static void choose_codes(const GroupLanes* x, const GroupLanes& scale, const GroupLanes& min, float d,
                                         float dmin, GroupLanes* codes) {
    const GroupLanes group_scale = d * scale, group_min = dmin * min;
    GroupLanes inverse;
    invert_lanes(group_scale, inverse);
    for (int i = 0; i < kGroup; ++i) {
      codes[i] = (x[i] + group_min) * inverse;
      clamp_lanes(codes[i], 0, kMaxCode);
      round_lanes(codes[i]);
    }
  }

  /// With codes and small numbers fixed, x ≈ d·u − dmin·v is a linear regression in d and dmin. Leaves both alone where
  /// it has no solution with both not negative.
  MORAINE_LANES static void fit_units(const Block256& block, const PerGroup& scales, const PerGroup& mins,
                                      const GroupLanes (&codes)[kHalves][kGroup], float& d, float& dmin) {
    PerGroup q_sums{}, qq_sums{}, xq_sums{}, x_sums{};
    for (int h = 0; h < kHalves; ++h) {
      GroupLanes q{}, qq{}, xq{}, x{};
      for (int i = 0; i < kGroup; ++i) {
        q += codes[h][i];
        qq += codes[h][i] * codes[h][i];
        xq += block.x[h][i] * codes[h][i];
        x += block.x[h][i];
      }
      q_sums.lanes[h] = q;
      qq_sums.lanes[h] = qq;
      xq_sums.lanes[h] = xq;
      x_sums.lanes[h] = x;
    }
    float scale[kGroups], min[kGroups], sum_q[kGroups], sum_qq[kGroups], sum_xq[kGroups], sum_x[kGroups];
    scales.store(scale);
    mins.store(min);
    q_sums.store(sum_q);
    qq_sums.store(sum_qq);
    xq_sums.store(sum_xq);
    x_sums.store(sum_x);
    double uu = 0, uv = 0, vv = 0, xu = 0, xv = 0;
    for (int g = 0; g < kGroups; ++g) {
      const double s = scale[g], m = min[g];
      uu += s * s * sum_qq[g];
      uv += s * m * sum_q[g];
      vv += kGroup * m * m;
      xu += s * sum_xq[g];
      xv += m * sum_x[g];
    }
    const double determinant = uu * vv - uv * uv;
    if (determinant <= 0) {
      if (uu > 0 && vv == 0 && xu > 0) d = static_cast<float>(xu / uu);
      return;
    }
    const double fitted_d = (xu * vv - uv * xv) / determinant, fitted_dmin = (xu * uv - uu * xv) / determinant;
    if (fitted_d < 0 || fitted_dmin < 0) return;
    d = static_cast<float>(fitted_d);
    dmin = static_cast<float>(fitted_dmin);
  }

  /// The f16 unit in which the largest of these numbers is kMaxScale.
  MORAINE_LANES static uint16_t unit_of(const PerGroup& numbers) {
    float list[kGroups];
    numbers.store(list);
    float largest = 0.0f;
    for (const float number : list) largest = number > largest ? number : largest;
    return f16_step(largest, kMaxScale);
  }

  /// x [256] → `block`; false if x can't be represented.
  template <typename Block>
  MORAINE_LANES static bool quantize(const float* values, Block& block) {
    constexpr float kReach = (kMaxScale + 1) / 2;  // the minimum takes this and more, the scale twice as much
    if (!(largest_magnitude(values, 256) <= kReach * kF16Max)) return false;
    const Block256 x(values);
    PerGroup wanted_scales, wanted_mins, scales, mins;
    for (int h = 0; h < kHalves; ++h) search(x.x[h], wanted_scales.lanes[h], wanted_mins.lanes[h]);
    block.d = unit_of(wanted_scales);
    block.dmin = unit_of(wanted_mins);
    GroupLanes codes[kHalves][kGroup];
    for (int round = 0; round < kRounds; ++round) {
      float d = f32_from_f16(block.d), dmin = f32_from_f16(block.dmin);
      scales = wanted_scales;
      mins = wanted_mins;
      for (int h = 0; h < kHalves; ++h) {
        choose_units(x.x[h], d, dmin, scales.lanes[h], mins.lanes[h]);
        choose_codes(x.x[h], scales.lanes[h], mins.lanes[h], d, dmin, codes[h]);
      }
      if (d < kFinelyRounded) break;
      fit_units(x, scales, mins, codes, d, dmin);
      block.d = f16_from_f32(std::min(d, kF16Max));
      block.dmin = f16_from_f32(std::min(dmin, kF16Max));
      d = f32_from_f16(block.d);
      dmin = f32_from_f16(block.dmin);
      for (int h = 0; h < kHalves; ++h) choose_codes(x.x[h], scales.lanes[h], mins.lanes[h], d, dmin, codes[h]);
    }
    float scale[kGroups], min[kGroups];
    scales.store(scale);
    mins.store(min);
    ScaleMin groups[kGroups];
    for (int g = 0; g < kGroups; ++g) groups[g] = {static_cast<uint8_t>(scale[g]), static_cast<uint8_t>(min[g])};
    uint8_t bytes[256];
    store_transposed(codes, bytes);
    write_codes(bytes, block);
    store_scale_mins(groups, block);
    return true;
  }

  MORAINE_LANES static void store_scale_mins(const ScaleMin* groups, BlockQ2_K& block) {
    for (int g = 0; g < 16; ++g) block.scales[g] = static_cast<uint8_t>(groups[g].scale | groups[g].min << 4);
  }
  template <typename Block>
  MORAINE_LANES static void store_scale_mins(const ScaleMin* groups, Block& block) {
    q4_k_store_scale_mins(groups, block.scales);
  }
};

using QuantizerQ2_K = AffineQuantizer<16, 3, 15, 3, kQ2_KTargets>;
using QuantizerQ4_K = AffineQuantizer<32, 15, 63, 1, kQ4_KTargets>;
using QuantizerQ5_K = AffineQuantizer<32, 31, 63, 1, kQ5_KTargets>;

}  // namespace moraine::quant::quantize_detail

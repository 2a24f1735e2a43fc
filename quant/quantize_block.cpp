#include "quant/quantize_block.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "quant/dequantize.h"

namespace moraine::quant {
namespace {

constexpr float kF16Max = 65504.0f;
/// Well below half the smallest f16 (2^-24): a scale of this size becomes 0, and reciprocals of smaller ones could
/// overflow.
constexpr float kNegligible = 1e-8f;
/// From here on f16 rounds finely enough (1/128 or better) that a fitted scale survives it.
constexpr float kFinelyRounded = 0x1p-18f;

/// Nearest integer (ties to even) of |v| < 2^22, without a call: adding 1.5·2^23 leaves no fraction bits.
inline float round_small(float v) {
  return (v + 0x1.8p23f) - 0x1.8p23f;
}

inline float clamp(float v, float low, float high) {
  v = v < low ? low : v;
  return v > high ? high : v;
}

inline float reciprocal_or_zero(float v) {
  return v == 0.0f ? 0.0f : 1.0f / v;
}

/// The f16 step that reaches `largest` in `steps` steps. Where f16 is subnormal and coarse, the next one up rather than
/// one that falls short of `largest`.
uint16_t f16_step(float largest, float steps) {
  const uint16_t nearest = f16_from_f32(largest / steps);
  const bool short_of_largest = f32_from_f16(nearest) * (steps + 0.5f) < largest;
  return static_cast<uint16_t>(nearest + (short_of_largest && largest >= kNegligible ? 1 : 0));
}

/// max |x|, or NaN or infinity if an x is one. As integers, the bits of magnitudes are in the order of their values,
/// with infinity and then NaN above all.
float largest_magnitude(const float* x, int n) {
  int32_t largest = 0;
  for (int i = 0; i < n; ++i) {
    const int32_t magnitude = std::bit_cast<int32_t>(x[i]) & 0x7fffffff;
    largest = magnitude > largest ? magnitude : largest;
  }
  return std::bit_cast<float>(largest);
}

/// The element of largest magnitude, with its sign.
float signed_max(const float* x, int n) {
  float low = 0.0f;
  float high = 0.0f;
  for (int i = 0; i < n; ++i) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
  }
  return high >= -low ? high : low;
}

/// Four candidates side by side, in one SSE register (GCC's and Clang's vector extension; every lane is plain f32
/// arithmetic).
using Lanes = float __attribute__((vector_size(16)));
constexpr size_t kLanes = 4;

constexpr Lanes broadcast(float v) {
  return Lanes{v, v, v, v};
}

/// v rounded to the nearest integer in [low, high], each lane as round_small(clamp(v, low, high)).
inline Lanes nearest_code(Lanes v, Lanes low, Lanes high) {
  constexpr Lanes kMagic = broadcast(0x1.8p23f);
  v = low > v ? low : v;
  v = high < v ? high : v;
  return (v + kMagic) - kMagic;
}

/// For each of K candidate scales, sums over a group's 32 codes.
template <size_t K>
struct CandidateSums {
  std::array<float, K> q, qq, xq;
};

/// Candidate k quantizes x [32] by code = round((x − origin) · targets[k] / range), clamped to [low, high]. Each sum
/// adds in the order of the elements.
template <size_t K>
CandidateSums<K> fit_candidates(const float* x, float origin, const std::array<float, K>& targets, float range,
                                float low, float high) {
  static_assert(K % (2 * kLanes) == 0);
  const Lanes lows = broadcast(low);
  const Lanes highs = broadcast(high);
  CandidateSums<K> sums;
  for (size_t k = 0; k < K; k += 2 * kLanes) {
    std::array<Lanes, 2> inverse, q_sum{}, qq_sum{},
        xq_sum{};  // two registers each, to hide the latency of the additions
    std::memcpy(inverse.data(), targets.data() + k, sizeof(inverse));
    for (Lanes& lanes : inverse) lanes /= broadcast(range);
    for (int i = 0; i < 32; ++i) {
      const Lanes value = broadcast(x[i]);
      const Lanes offset = broadcast(x[i] - origin);
      for (size_t h = 0; h < 2; ++h) {
        const Lanes q = nearest_code(offset * inverse[h], lows, highs);
        q_sum[h] += q;
        qq_sum[h] += q * q;
        xq_sum[h] += value * q;
      }
    }
    std::memcpy(sums.q.data() + k, q_sum.data(), sizeof(q_sum));
    std::memcpy(sums.qq.data() + k, qq_sum.data(), sizeof(qq_sum));
    std::memcpy(sums.xq.data() + k, xq_sum.data(), sizeof(xq_sum));
  }
  return sums;
}

// ---- Q4_0 -----------------------------------------------------------------------------------------------------------

/// Candidate scales of a Q4_0 block, as the code that the largest element would get: from clipping it hard to leaving
/// room. Negative targets put it on the side with 8 steps, positive ones on the side with 7.
constexpr std::array<float, 24> kQ4_0Targets = {-9.4f, -9.0f, -8.7f, -8.4f, -8.2f, -8.0f, -7.8f, -7.6f,
                                                -7.4f, -7.2f, -7.0f, -6.8f, 8.6f,  8.2f,  7.9f,  7.6f,
                                                7.4f,  7.2f,  7.0f,  6.8f,  6.6f,  6.4f,  6.2f,  6.0f};

/// x [32] → the candidate scale that lowers the squared error most. With codes q fixed, the best scale is Σxq / Σqq and
/// lowers the error by (Σxq)² / Σqq.
float search_q4_0_scale(const float* x, float largest) {
  const auto fits = fit_candidates<kQ4_0Targets.size()>(x, 0.0f, kQ4_0Targets, largest, -8.0f, 7.0f);
  float best_gain = -1.0f;
  float best_scale = 0.0f;
  for (size_t k = 0; k < kQ4_0Targets.size(); ++k) {
    const float scale = fits.xq[k] / fits.qq[k];  // the largest element's code is not 0, so neither is the sum
    const float gain = fits.xq[k] * scale;
    if (gain > best_gain) {
      best_gain = gain;
      best_scale = scale;
    }
  }
  return best_scale;
}

// ---- Q4_K -----------------------------------------------------------------------------------------------------------

/// A group's affine code: x ≈ scale·code − min, both not negative.
struct Affine {
  float scale;
  float min;
};

/// Candidates for the code of a group's largest element above its smallest: from room above to hard clipping.
constexpr std::array<float, 24> kQ4_KTargets = {13.6f, 13.8f, 14.0f, 14.2f, 14.4f, 14.6f, 14.8f, 15.0f,
                                                15.1f, 15.2f, 15.3f, 15.4f, 15.5f, 15.6f, 15.7f, 15.8f,
                                                15.9f, 16.0f, 16.2f, 16.4f, 16.6f, 16.8f, 17.1f, 17.4f};

/// x [32] → the affine code of least squared error among the candidates, each refined by linear regression on its
/// codes.
Affine search_q4_k_group(const float* x) {
  constexpr size_t kCandidates = kQ4_KTargets.size();
  float low = 0.0f;  // the minimum that is subtracted can't be negative, so 0 always lies in the range
  float high = x[0];
  float sum_x = 0.0f;
  for (int i = 0; i < 32; ++i) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
    sum_x += x[i];
  }
  if (high - low < kNegligible) return {0.0f, -low};
  const auto fits = fit_candidates<kCandidates>(x, low, kQ4_KTargets, high - low, 0.0f, 15.0f);
  Affine best{0.0f, 0.0f};
  float best_gain = -1.0f;
  for (size_t k = 0; k < kCandidates; ++k) {
    const float determinant = 32.0f * fits.qq[k] - fits.q[k] * fits.q[k];
    Affine fit{fits.xq[k] / fits.qq[k], 0.0f};
    if (determinant > 0.0f) {
      const float min = (fits.q[k] * fits.xq[k] - fits.qq[k] * sum_x) / determinant;
      if (min > 0.0f) fit = {(32.0f * fits.xq[k] - fits.q[k] * sum_x) / determinant, min};
    }
    const float gain = fit.scale * fits.xq[k] - fit.min * sum_x;  // Σx² less the squared error, at a least-squares fit
    if (gain > best_gain && fit.scale >= 0.0f) {
      best_gain = gain;
      best = fit;
    }
  }
  return best;
}

/// A group's scale and minimum in units of d and dmin, nearest first guess.
ScaleMin to_units(const Affine& group, float inverse_d, float inverse_dmin) {
  return {static_cast<uint8_t>(round_small(clamp(group.scale * inverse_d, 0.0f, 63.0f))),
          static_cast<uint8_t>(round_small(clamp(group.min * inverse_dmin, 0.0f, 63.0f)))};
}

/// Steps around a group's first guess of scale and minimum that best_neighbour() tries. A larger scale goes with a
/// larger minimum, so the pair that moves them furthest apart is left out.
constexpr std::array<std::array<int, 2>, 8> kNeighbours = {
    {{0, 0}, {1, 1}, {-1, -1}, {1, 0}, {-1, 0}, {0, 1}, {0, -1}, {-1, 1}}};

/// The best neighbour of `guess` by the squared error that decoding x [32] will have: rounding scale and minimum one by
/// one is not the best pair.
ScaleMin best_neighbour(const float* x, ScaleMin guess, float d, float dmin) {
  std::array<ScaleMin, 8> pairs;
  std::array<float, 8> scales, inverses, mins, errors;
  for (size_t k = 0; k < 8; ++k) {
    const int s = std::clamp(guess.scale + kNeighbours[k][0], 0, 63);
    const int m = std::clamp(guess.min + kNeighbours[k][1], 0, 63);
    pairs[k] = {static_cast<uint8_t>(s), static_cast<uint8_t>(m)};
    scales[k] = d * static_cast<float>(s);
    inverses[k] = reciprocal_or_zero(scales[k]);
    mins[k] = dmin * static_cast<float>(m);
  }
  std::array<Lanes, 2> scale, inverse, min, error{};
  std::memcpy(scale.data(), scales.data(), sizeof(scale));
  std::memcpy(inverse.data(), inverses.data(), sizeof(inverse));
  std::memcpy(min.data(), mins.data(), sizeof(min));
  for (int i = 0; i < 32; ++i) {
    const Lanes value = broadcast(x[i]);
    for (size_t h = 0; h < 2; ++h) {
      const Lanes q = nearest_code((value + min[h]) * inverse[h], broadcast(0.0f), broadcast(15.0f));
      const Lanes difference = scale[h] * q - min[h] - value;
      error[h] += difference * difference;
    }
  }
  std::memcpy(errors.data(), error.data(), sizeof(error));
  return pairs[static_cast<size_t>(std::min_element(errors.begin(), errors.end()) - errors.begin())];
}

/// x [256] → codes [256], the nearest for these scales.
void choose_codes(const float* x, const ScaleMin groups[8], float d, float dmin, float* codes) {
  for (int b = 0; b < 8; ++b) {
    const float inverse = reciprocal_or_zero(d * static_cast<float>(groups[b].scale));
    const float min = dmin * static_cast<float>(groups[b].min);
    for (int i = 32 * b; i < 32 * b + 32; ++i) codes[i] = round_small(clamp((x[i] + min) * inverse, 0.0f, 15.0f));
  }
}

/// With codes and 6-bit numbers fixed, x ≈ d·u − dmin·v is a linear regression in d and dmin. Leaves both alone where
/// it has no solution with both not negative.
void fit_units(const float* x, const ScaleMin groups[8], const float* codes, float& d, float& dmin) {
  double uu = 0, uv = 0, vv = 0, xu = 0, xv = 0;
  for (int b = 0; b < 8; ++b) {
    float sum_q = 0, sum_qq = 0, sum_xq = 0, sum_x = 0;
    for (int i = 32 * b; i < 32 * b + 32; ++i) {
      sum_q += codes[i];
      sum_qq += codes[i] * codes[i];
      sum_xq += x[i] * codes[i];
      sum_x += x[i];
    }
    const double s = groups[b].scale;
    const double m = groups[b].min;
    uu += s * s * sum_qq;
    uv += s * m * sum_q;
    vv += 32 * m * m;
    xu += s * sum_xq;
    xv += m * sum_x;
  }
  const double determinant = uu * vv - uv * uv;
  if (determinant <= 0) {
    if (uu > 0 && vv == 0 && xu > 0) d = static_cast<float>(xu / uu);
    return;
  }
  const double fitted_d = (xu * vv - uv * xv) / determinant;
  const double fitted_dmin = (xu * uv - uu * xv) / determinant;
  if (fitted_d < 0 || fitted_dmin < 0) return;
  d = static_cast<float>(fitted_d);
  dmin = static_cast<float>(fitted_dmin);
}

void store_codes(const float* codes, BlockQ4_K& block) {
  for (int pair = 0; pair < 4; ++pair) {
    const float* low = codes + 64 * pair;
    for (int i = 0; i < 32; ++i) {
      block.codes[32 * pair + i] = static_cast<uint8_t>(static_cast<int>(low[i]) | static_cast<int>(low[i + 32]) << 4);
    }
  }
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
  if (!(largest_magnitude(x, 32) <= 7.0f * kF16Max)) return false;
  const float largest = signed_max(x, 32);
  const float scale = std::abs(largest) < kNegligible ? 0.0f : search_q4_0_scale(x, largest);
  block.d = f16_from_f32(scale);
  const float inverse = reciprocal_or_zero(f32_from_f16(block.d));
  std::array<int, 32> codes;
  for (size_t i = 0; i < 32; ++i) codes[i] = 8 + static_cast<int>(round_small(clamp(x[i] * inverse, -8.0f, 7.0f)));
  for (size_t j = 0; j < 16; ++j) block.codes[j] = static_cast<uint8_t>(codes[j] | codes[j + 16] << 4);
  return true;
}

bool quantize_block(const float* x, BlockQ4_K& block) {
  if (!(largest_magnitude(x, 256) <= 32.0f * kF16Max)) return false;
  std::array<Affine, 8> fits;
  float largest_scale = 0.0f;
  float largest_min = 0.0f;
  for (size_t b = 0; b < 8; ++b) {
    fits[b] = search_q4_k_group(x + 32 * b);
    largest_scale = std::max(largest_scale, fits[b].scale);
    largest_min = std::max(largest_min, fits[b].min);
  }
  block.d = f16_step(largest_scale, 63.0f);
  block.dmin = f16_step(largest_min, 63.0f);
  float d = f32_from_f16(block.d);
  float dmin = f32_from_f16(block.dmin);
  std::array<ScaleMin, 8> groups;
  for (size_t b = 0; b < 8; ++b) {
    groups[b] = to_units(fits[b], reciprocal_or_zero(d), reciprocal_or_zero(dmin));
    groups[b] = best_neighbour(x + 32 * b, groups[b], d, dmin);
  }
  std::array<float, 256> codes;
  choose_codes(x, groups.data(), d, dmin, codes.data());
  if (d >= kFinelyRounded) {
    fit_units(x, groups.data(), codes.data(), d, dmin);
    block.d = f16_from_f32(std::min(d, kF16Max));
    block.dmin = f16_from_f32(std::min(dmin, kF16Max));
    choose_codes(x, groups.data(), f32_from_f16(block.d), f32_from_f16(block.dmin), codes.data());
  }
  q4_k_store_scale_mins(groups.data(), block.scales);
  store_codes(codes.data(), block);
  return true;
}

}  // namespace moraine::quant

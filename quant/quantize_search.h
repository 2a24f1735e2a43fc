#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "quant/dequantize.h"

/// What the quantizers of the block formats share: least-squares searches over candidate scales. Plain C++ without
/// contraction or reassociation, so that a weight becomes the same block on every machine.
namespace moraine::quant::quantize_detail {

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
inline uint16_t f16_step(float largest, float steps) {
  const uint16_t nearest = f16_from_f32(largest / steps);
  const bool short_of_largest = f32_from_f16(nearest) * (steps + 0.5f) < largest;
  return static_cast<uint16_t>(nearest + (short_of_largest && largest >= kNegligible ? 1 : 0));
}

/// max |x|, or NaN or infinity if an x is one. As integers, the bits of magnitudes are in the order of their values,
/// with infinity and then NaN above all.
inline float largest_magnitude(const float* x, int n) {
  int32_t largest = 0;
  for (int i = 0; i < n; ++i) {
    const int32_t magnitude = std::bit_cast<int32_t>(x[i]) & 0x7fffffff;
    largest = magnitude > largest ? magnitude : largest;
  }
  return std::bit_cast<float>(largest);
}

/// The element of largest magnitude, with its sign.
inline float signed_max(const float* x, int n) {
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

/// For each of K candidate scales, sums over a group's codes.
template <size_t K>
struct CandidateSums {
  std::array<float, K> q, qq, xq;
};

/// Candidate k quantizes x [N] by code = round((x − origin) · targets[k] / range), clamped to [low, high]. Each sum
/// adds in the order of the elements.
template <int N, size_t K>
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
    for (int i = 0; i < N; ++i) {
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

/// x [N] → the candidate scale that lowers the squared error most, with codes from `low` to `high`. Candidate k gives
/// `largest` (not 0) the code targets[k]. With codes q fixed, the best scale is Σxq / Σqq and lowers the error by
/// (Σxq)² / Σqq.
template <int N, size_t K>
float search_scale(const float* x, float largest, const std::array<float, K>& targets, float low, float high) {
  const auto fits = fit_candidates<N>(x, 0.0f, targets, largest, low, high);
  float best_gain = -1.0f;
  float best_scale = 0.0f;
  for (size_t k = 0; k < K; ++k) {
    const float scale = fits.xq[k] / fits.qq[k];  // the largest element's code is not 0, so neither is the sum
    const float gain = fits.xq[k] * scale;
    if (gain > best_gain) {
      best_gain = gain;
      best_scale = scale;
    }
  }
  return best_scale;
}

/// A group's affine code: x ≈ scale·code − min, scale not negative.
struct Affine {
  float scale;
  float min;
};

/// x [N] → the affine code of least squared error among the candidates, each refined by linear regression on its
/// codes. Candidate k gives the largest element above the smallest the code targets[k].
template <int N, size_t K>
Affine search_affine(const float* x, const std::array<float, K>& targets, float max_code) {
  float low = x[0];
  float high = x[0];
  float sum_x = 0.0f;
  for (int i = 0; i < N; ++i) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
    sum_x += x[i];
  }
  if (high - low < kNegligible) return {0.0f, -low};
  const auto fits = fit_candidates<N>(x, low, targets, high - low, 0.0f, max_code);
  constexpr auto kCount = static_cast<float>(N);
  Affine best{0.0f, 0.0f};
  float best_gain = -1.0f;
  for (size_t k = 0; k < K; ++k) {
    const float determinant = kCount * fits.qq[k] - fits.q[k] * fits.q[k];
    Affine fit{fits.xq[k] / fits.qq[k], 0.0f};
    if (determinant > 0.0f) {
      fit = {(kCount * fits.xq[k] - fits.q[k] * sum_x) / determinant,
             (fits.q[k] * fits.xq[k] - fits.qq[k] * sum_x) / determinant};
    }
    const float gain = fit.scale * fits.xq[k] - fit.min * sum_x;  // Σx² less the squared error, at a least-squares fit
    if (gain > best_gain && fit.scale >= 0.0f) {
      best_gain = gain;
      best = fit;
    }
  }
  return best;
}

}  // namespace moraine::quant::quantize_detail

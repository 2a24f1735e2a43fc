#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

/// Derived error bounds for comparing a kernel's result with the exact (f64) one: a test states how many roundings lie
/// on the way and gets a bound that correct code cannot exceed, instead of a guessed epsilon. Source of the bounds: N.
/// Higham, Accuracy and Stability of Numerical Algorithms (2nd ed.), §3.1 and §4.2.
namespace moraine::testing {

/// Unit roundoff u of a format (half the distance from 1 to the next number): the relative error of one rounding.
constexpr double kUnitF32 = 0x1p-24;
constexpr double kUnitF16 = 0x1p-11;
constexpr double kUnitBf16 = 0x1p-8;

/// gamma_n = n·u / (1 − n·u): the relative error of n roundings in a row is at most this. Infinite once n·u >= 1.
constexpr double gamma(int64_t n, double unit) {
  const double nu = static_cast<double>(n) * unit;
  return nu < 1.0 ? nu / (1.0 - nu) : std::numeric_limits<double>::infinity();
}

/// Bound on |computed − exact| of a dot product of `k` terms that is multiplied and added with unit roundoff `unit`, in
/// any order and with or without fused multiply-add: gamma_k · Σ|a·b|. `sum_abs_products` is Σ|a·b| in f64. Results
/// that underflow add up to k halves of the smallest f32 subnormal, which the bound includes.
constexpr double dot_tolerance(int64_t k, double sum_abs_products, double unit = kUnitF32) {
  return gamma(k, unit) * sum_abs_products + static_cast<double>(k) * 0x1p-149;
}

/// dot_tolerance for terms that were themselves rounded: `extra_roundings` more per term, for example 1 for an FP8
/// weight (e4m3 × scale), 2 for a Q4_K weight (a difference of products), 1 for a partial sum that is scaled
/// afterwards.
constexpr double scaled_dot_tolerance(int64_t k, int64_t extra_roundings, double sum_abs_products,
                                      double unit = kUnitF32) {
  return dot_tolerance(k + extra_roundings, sum_abs_products, unit);
}

/// Bound on what quantizing the activations of a dot product to `levels` steps per side changes: each x is off by at
/// most half a step, 0.5 · max|x| / levels, so the sum by that times Σ|w|. `levels` is 127 for int8.
constexpr double activation_quantization_tolerance(double max_abs_activation, double sum_abs_weights,
                                                   double levels = 127.0) {
  return 0.5 * max_abs_activation / levels * sum_abs_weights;
}

/// Bound on the error of one rounding of `value` to a format with unit roundoff `unit` (normal range).
inline double rounding_tolerance(double value, double unit) {
  return unit * std::abs(value);
}

}  // namespace moraine::testing

#pragma once

#include <cstdint>

namespace moraine::cpu {

/// Rotates interleaved pairs in place: (x0, x1) := (x0·cos − x1·sin, x0·sin + x1·cos), products rounded to f32
/// (shared/spec/deepseek-v3.md §4).
inline void rotate_pairs(float* x, const float* cos, const float* sin, int64_t pairs) noexcept {
  for (int64_t i = 0; i < pairs; ++i) {
    const float first = x[2 * i], second = x[2 * i + 1];
    x[2 * i] = first * cos[i] - second * sin[i];
    x[2 * i + 1] = first * sin[i] + second * cos[i];
  }
}

/// The same for half-split pairs: (x[i], x[i + pairs]) := (x[i]·cos − x[i + pairs]·sin, x[i + pairs]·cos + x[i]·sin)
/// (shared/spec/dense-distills.md §3).
inline void rotate_halves(float* x, const float* cos, const float* sin, int64_t pairs) noexcept {
  for (int64_t i = 0; i < pairs; ++i) {
    const float first = x[i], second = x[i + pairs];
    x[i] = first * cos[i] - second * sin[i];
    x[i + pairs] = second * cos[i] + first * sin[i];
  }
}

}  // namespace moraine::cpu

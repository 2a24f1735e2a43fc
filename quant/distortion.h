#pragma once

#include <span>

namespace moraine::quant {

/// Root of the mean squared difference of two spans of the same length, summed in f64; 0 for empty spans.
double rmse(std::span<const float> reference, std::span<const float> approximation);

/// ‖reference − approximation‖₂ / ‖reference‖₂, in f64. 0 if they are equal, infinity if only the reference is zero.
double relative_error(std::span<const float> reference, std::span<const float> approximation);

}  // namespace moraine::quant

#include "quant/distortion.h"

#include <cmath>
#include <cstddef>

#include "quant/error.h"

namespace moraine::quant {
namespace {

double squared_distance(std::span<const float> a, std::span<const float> b) {
  MORAINE_CHECK(a.size() == b.size());
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += difference * difference;
  }
  return sum;
}

}  // namespace

double rmse(std::span<const float> reference, std::span<const float> approximation) {
  const double squared = squared_distance(reference, approximation);
  return reference.empty() ? 0.0 : std::sqrt(squared / static_cast<double>(reference.size()));
}

double relative_error(std::span<const float> reference, std::span<const float> approximation) {
  const double squared = squared_distance(reference, approximation);
  if (squared == 0.0) return 0.0;
  double norm = 0.0;
  for (const float v : reference) norm += static_cast<double>(v) * static_cast<double>(v);
  return std::sqrt(squared / norm);
}

}  // namespace moraine::quant

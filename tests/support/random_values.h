#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

namespace moraine::testing {

/// SplitMix64 (Steele et al. 2014): the same numbers on every machine, which std::normal_distribution does not promise.
class RandomValues {
 public:
  explicit RandomValues(uint64_t seed) : state_(seed) {}

  uint64_t bits() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  /// Uniform in [0, 1).
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  /// Normal with mean 0 and variance 1 (Box–Muller).
  double normal() { return std::sqrt(-2.0 * std::log(1.0 - uniform())) * std::cos(2.0 * std::numbers::pi * uniform()); }

  /// `count` values like a weight matrix's: normal, with a heavy tail every 64th.
  std::vector<float> weights(size_t count, double scale = 0.02) {
    std::vector<float> values(count);
    for (size_t i = 0; i < count; ++i) values[i] = static_cast<float>(normal() * scale * (i % 64 == 63 ? 4.0 : 1.0));
    return values;
  }

 private:
  uint64_t state_;
};

}  // namespace moraine::testing

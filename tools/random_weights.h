#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "quant/expert_layout.h"

namespace moraine::tools {

/// Random bytes at the speed of memory: eight xorshift64 generators side by side (Marsaglia, "Xorshift RNGs", 2003),
/// which a compiler turns into SIMD code. For weights without meaning, not for secrets or statistics.
class LaneRandom {
 public:
  /// The stream that belongs to `seed` and `name`: the same on every machine.
  LaneRandom(uint64_t seed, std::string_view name);
  /// The next bytes; what a last piece below 64 bytes leaves over is dropped.
  void fill(std::span<std::byte> out);

 private:
  std::array<uint64_t, 8> lanes_;
};

/// How the weights of a tensor are spread.
struct Spread {
  float mean = 0.0f;  ///< plain numbers only; blocks have mean 0
  float deviation = 0.0f;
};

/// Standard deviation of the numbers that stand for F8_E4M3 weights before their scale is applied.
constexpr float kE4m3Deviation = 157.0f;

/// Fills a tensor as files hold it, rows of `type` one after the other: F32, BF16 (bell-shaped), F8_E4M3
/// (kE4m3Deviation whatever `spread` says), or a block format up to IQ4_XS. Every number is finite.
void fill_tensor(LaneRandom& random, quant::DType type, const Spread& spread, std::span<std::byte> out);

/// Fills a packed matrix (quant/packed_matrix.h) of BF16, F8_E4M3 or a block format up to IQ4_XS, whose rows are a
/// multiple of 16, without quantizing anything: random codes, and scales that give `deviation`.
void fill_packed(LaneRandom& random, const quant::MatrixDesc& matrix, float deviation, std::span<std::byte> out);

}  // namespace moraine::tools

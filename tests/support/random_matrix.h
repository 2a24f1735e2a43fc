#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quant/aligned_buffer.h"
#include "quant/packed_matrix.h"
#include "support/random_values.h"

/// Random numbers and packed weight matrices for kernel tests. The same seed gives the same numbers.
namespace moraine::testing {

/// Normally distributed values.
inline std::vector<float> random_values(int64_t count, double deviation, RandomValues& random) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(random.normal() * deviation);
  return values;
}

/// A packed matrix with its memory.
struct RandomMatrix {
  quant::AlignedBuffer storage;
  quant::PackedView view;

  /// What the matrix means, [rows, cols].
  std::vector<float> dequantized() const {
    std::vector<float> values(static_cast<size_t>(view.rows * view.cols));
    quant::dequantize_packed(view, 0, view.rows, values);
    return values;
  }
};

inline RandomMatrix make_matrix(quant::DType type, int64_t rows, int64_t cols) {
  RandomMatrix matrix;
  matrix.storage = quant::AlignedBuffer(quant::packed_bytes(type, rows, cols));
  matrix.view = {type, rows, cols, matrix.storage.data()};
  return matrix;
}

/// Weights as a model has them: normally distributed, quantized to `type`.
inline RandomMatrix random_matrix(quant::DType type, int64_t rows, int64_t cols, RandomValues& random,
                                  double deviation = 0.05) {
  RandomMatrix matrix = make_matrix(type, rows, cols);
  if (type == quant::DType::kF8E4M3) {
    std::vector<std::byte> bytes(static_cast<size_t>(rows * cols));
    for (std::byte& byte : bytes) {
      do byte = static_cast<std::byte>(random.bits());
      while ((byte & std::byte{0x7f}) == std::byte{0x7f});
    }
    const int64_t blocks = (rows + 127) / 128 * ((cols + 127) / 128);
    std::vector<float> scales(static_cast<size_t>(blocks));
    for (float& scale : scales)
      scale = static_cast<float>(deviation / 100.0 * (1.0 + static_cast<double>(random.bits() % 97) / 97.0));
    quant::pack_fp8(bytes, scales, rows, cols, matrix.storage.span());
  } else {
    quant::quantize_packed(type, random_values(rows * cols, deviation, random), rows, cols, matrix.storage.span());
  }
  return matrix;
}

/// Every byte random: all exponents, subnormals, infinities and NaNs that the format can hold, in weights and scales.
inline RandomMatrix random_bytes_matrix(quant::DType type, int64_t rows, int64_t cols, RandomValues& random) {
  RandomMatrix matrix = make_matrix(type, rows, cols);
  for (std::byte& byte : matrix.storage.span()) byte = static_cast<std::byte>(random.bits());
  return matrix;
}

}  // namespace moraine::testing

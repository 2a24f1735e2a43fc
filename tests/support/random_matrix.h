#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "quant/aligned_buffer.h"
#include "quant/packed_matrix.h"
#include "quant/quantize.h"
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

/// Where a block of `type` keeps its f16 numbers; empty for plain numbers and IQ1_M, whose d is scattered.
inline std::vector<size_t> f16_fields(quant::DType type) {
  using quant::DType;
  switch (type) {
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
      return {0, 2};
    case DType::kQ2_K:
      return {80, 82};
    case DType::kQ3_K:
      return {108};
    case DType::kQ6_K:
      return {208};
    case DType::kIQ1_M:
      return {};
    default:
      return quant::block_elements(type) == 1 ? std::vector<size_t>{} : std::vector<size_t>{0};
  }
}

/// A matrix of blocks whose bytes are byte() and whose f16 numbers are half().
template <typename MakeByte, typename MakeHalf>
RandomMatrix matrix_of_blocks(quant::DType type, int64_t rows, int64_t cols, MakeByte byte, MakeHalf half) {
  RandomMatrix matrix = make_matrix(type, rows, cols);
  std::vector<std::byte> blocks(static_cast<size_t>(rows) * quant::row_bytes(type, cols));
  for (std::byte& b : blocks) b = static_cast<std::byte>(byte());
  const size_t block_bytes = quant::row_bytes(type, quant::block_elements(type));
  for (size_t at = 0; at < blocks.size(); at += block_bytes) {
    for (const size_t field : f16_fields(type)) {
      const uint16_t value = half();
      std::memcpy(blocks.data() + at + field, &value, sizeof(value));
    }
    if (type == quant::DType::kIQ1_M) blocks[at + 55] &= std::byte{0x3f};  // below 2: finite
  }
  quant::pack_matrix(type, blocks, rows, cols, matrix.storage.span());
  return matrix;
}

/// Every code and every finite scale, of either sign, up to the largest and down to subnormals.
inline RandomMatrix finite_blocks_matrix(quant::DType type, int64_t rows, int64_t cols, RandomValues& random) {
  return matrix_of_blocks(
      type, rows, cols, [&] { return static_cast<uint8_t>(random.bits()); },
      [&] {
        const auto half = static_cast<uint16_t>(random.bits());
        return static_cast<uint16_t>((half & 0x7c00) == 0x7c00 ? half ^ 0x0400 : half);
      });
}

/// Weights as a model has them: normally distributed, quantized to `type`; for the grid formats
/// random codes.
inline RandomMatrix random_matrix(quant::DType type, int64_t rows, int64_t cols, RandomValues& random,
                                  double deviation = 0.05) {
  if (type >= quant::DType::kIQ3_XXS && type <= quant::DType::kIQ1_M)
    return finite_blocks_matrix(type, rows, cols, random);
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

#include "quant/packed_matrix.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "quant/block_check.h"
#include "quant/dequantize.h"
#include "quant/error.h"
#include "quant/packed_blocks.h"
#include "quant/quantize.h"
#include "quant/quantize_block.h"
#include "quant/visit_block_format.h"

namespace moraine::quant {
namespace {

constexpr uint64_t kAlignment = 64;
constexpr uint64_t kMaxBytes = uint64_t{1} << 48;
/// Two sides up to this and the bytes of a weight multiply without leaving 64 bits.
constexpr int64_t kMaxSide = int64_t{1} << 28;

constexpr uint64_t align_up(uint64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}
constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
constexpr int64_t fp8_squares(int64_t rows, int64_t cols) {
  return ceil_div(rows, kFp8Block) * ceil_div(cols, kFp8Block);
}

void check_shape(DType type, int64_t rows, int64_t cols) {
  if (rows < 1 || cols < 1 || rows > kMaxSide || cols > kMaxSide || cols % block_elements(type) != 0) {
    throw Error(ErrorKind::kBadFile,
                {.what = fmt::format("impossible shape for a {} matrix", dtype_name(type)),
                 .expected = fmt::format("sides of 1 to 2^28, columns a multiple of {}", block_elements(type)),
                 .got = fmt::format("[{}, {}]", rows, cols)});
  }
}

[[noreturn]] void throw_unpackable(DType type) {
  throw Error(ErrorKind::kBadFile, {.what = "a matrix of this type has no packed order",
                                    .expected = "F32, F16, BF16, F8_E4M3 or a block format such as Q8_0 or Q4_K",
                                    .got = std::string(dtype_name(type))});
}

/// Calls use(block) with an empty block of the type's C++ form.
template <typename Use>
auto with_block_of(DType type, Use use) {
  switch (type) {
    case DType::kF32:
      return use(ElementF32{});
    case DType::kF16:
      return use(ElementF16{});
    case DType::kBF16:
      return use(ElementBf16{});
    case DType::kF8E4M3:
      return use(ElementE4m3{});
    default:
      return visit_block_format(type, use, [type]() -> decltype(use(ElementF32{})) { throw_unpackable(type); });
  }
}

/// As block_check.h has it for blocks.
float witness(const ElementF32& element) {
  return element.value;
}
float witness(const ElementF16& element) {
  return f32_from_f16(element.value);
}
float witness(const ElementBf16& element) {
  return f32_from_bf16(element.value);
}
float witness(const ElementE4m3& element) {
  return f32_from_e4m3(element.value);
}

bool quantize_block(const float* x, ElementF32& element) {
  element.value = *x;
  return std::isfinite(*x);
}
bool quantize_block(const float* x, ElementF16& element) {
  element.value = f16_from_f32(*x);
  return std::isfinite(f32_from_f16(element.value));
}
bool quantize_block(const float* x, ElementBf16& element) {
  element.value = bf16_from_f32(*x);
  return std::isfinite(f32_from_bf16(element.value));
}

[[noreturn]] void throw_bad_weight(const std::string& what, int64_t row, int64_t col, float got) {
  throw Error(ErrorKind::kBadFile, {.what = fmt::format("{} at row {}, column {}", what, row, col),
                                    .expected = "a finite number in the format's range",
                                    .got = fmt::format("{}", got),
                                    .action = "get an undamaged copy of the model"});
}

/// The Error for a block that quantize_block() refused: points at its first unusable value, else at its largest.
[[noreturn]] void throw_unquantizable(DType type, const float* x, int64_t n, int64_t row, int64_t col) {
  int64_t worst = 0;
  for (int64_t i = 0; i < n && std::isfinite(x[worst]); ++i) {
    if (!std::isfinite(x[i]) || std::abs(x[i]) > std::abs(x[worst])) worst = i;
  }
  throw_bad_weight(fmt::format("weight that can't be written as {}", dtype_name(type)), row, col + worst, x[worst]);
}

/// visit(group, row, r, b) for every block: `group` is the first byte of the row's group, r the row in it, b the
/// block's number in the row. Rows vary fastest: writes stay within a few cache lines while 16 rows are read as 16
/// streams.
template <typename Byte, typename Visit>
void for_each_block(DType type, int64_t rows, int64_t cols, Byte* data, Visit visit) {
  const uint64_t group_bytes = packed_group_bytes(type, cols);
  const int64_t blocks = cols / block_elements(type);
  for (int64_t first = 0; first < rows; first += kRowGroup, data += group_bytes) {
    const int64_t rows_here = std::min(kRowGroup, rows - first);
    for (int64_t b = 0; b < blocks; ++b) {
      for (int64_t r = 0; r < rows_here; ++r) visit(data, first + r, r, b);
    }
  }
}

/// Zeros where no block is written: a last group without 16 rows, odd columns, gaps before the next multiple of 64,
/// what follows the groups. (Clearing all first would be a third pass over a matrix of hundreds of megabytes.)
void clear_padding(DType type, int64_t rows, int64_t cols, std::span<std::byte> out) {
  const uint64_t group_bytes = packed_group_bytes(type, cols);
  const auto full_groups = static_cast<uint64_t>(rows / kRowGroup);
  const uint64_t written_bytes = row_bytes(type, cols) * static_cast<uint64_t>(kRowGroup);
  if (type == DType::kBF16 && cols % 2 != 0) {
    std::ranges::fill(out, std::byte{0});
    return;
  }
  if (written_bytes < group_bytes) {
    for (uint64_t group = 0; group < full_groups; ++group) {
      std::ranges::fill(out.subspan(group * group_bytes + written_bytes, group_bytes - written_bytes), std::byte{0});
    }
  }
  std::ranges::fill(out.subspan(full_groups * group_bytes), std::byte{0});
}

void pack_any(DType type, std::span<const std::byte> row_major, int64_t rows, int64_t cols, std::span<std::byte> out) {
  MORAINE_CHECK(out.size() == packed_bytes(type, rows, cols));
  MORAINE_CHECK(row_major.size() == static_cast<uint64_t>(rows) * row_bytes(type, cols));
  clear_padding(type, rows, cols, out);
  with_block_of(type, [&]<typename Block>(Block block) {
    const int64_t blocks = cols / Block::kElements;
    for_each_block(type, rows, cols, out.data(), [&](std::byte* group, int64_t row, int64_t r, int64_t b) {
      std::memcpy(&block, row_major.data() + static_cast<size_t>(row * blocks + b) * sizeof(Block), sizeof(Block));
      if (!std::isfinite(witness(block))) {
        throw_bad_weight("NaN or infinite weight or scale", row, b * Block::kElements, witness(block));
      }
      scatter(block, group, cols, b, r);
    });
  });
}

}  // namespace

uint64_t packed_group_bytes(DType type, int64_t cols) {
  check_shape(type, 1, cols);
  return with_block_of(type, [&]<typename Block>(Block) -> uint64_t {
    if (type == DType::kBF16) return static_cast<uint64_t>(ceil_div(cols, 2)) * 64;
    return align_up(static_cast<uint64_t>(cols / Block::kElements) * sizeof(Block) * kRowGroup);
  });
}

uint64_t packed_fp8_scales_offset(int64_t rows, int64_t cols) {
  check_shape(DType::kF8E4M3, rows, cols);
  return static_cast<uint64_t>(ceil_div(rows, kRowGroup)) * packed_group_bytes(DType::kF8E4M3, cols);
}

uint64_t packed_bytes(DType type, int64_t rows, int64_t cols) {
  check_shape(type, rows, cols);
  uint64_t bytes = static_cast<uint64_t>(ceil_div(rows, kRowGroup)) * packed_group_bytes(type, cols);
  if (type == DType::kF8E4M3) bytes += align_up(static_cast<uint64_t>(fp8_squares(rows, cols)) * sizeof(float));
  if (bytes > kMaxBytes) {
    throw Error(ErrorKind::kBadFile, {.what = fmt::format("a {} matrix is too large", dtype_name(type)),
                                      .expected = "at most 2^48 bytes",
                                      .got = fmt::format("[{}, {}], {} bytes", rows, cols, bytes)});
  }
  return bytes;
}

void pack_matrix(DType type, std::span<const std::byte> row_major, int64_t rows, int64_t cols,
                 std::span<std::byte> out) {
  MORAINE_CHECK(type != DType::kF8E4M3);
  pack_any(type, row_major, rows, cols, out);
}

void pack_fp8(std::span<const std::byte> e4m3, std::span<const float> scale_inv, int64_t rows, int64_t cols,
              std::span<std::byte> out) {
  const uint64_t scales_offset = packed_fp8_scales_offset(rows, cols);
  MORAINE_CHECK(scale_inv.size() == static_cast<size_t>(fp8_squares(rows, cols)));
  for (size_t i = 0; i < scale_inv.size(); ++i) {
    constexpr float kLargest = 448.0f;  // of e4m3: its product with the scale must be finite too
    if (std::isfinite(scale_inv[i] * kLargest)) continue;
    const int64_t square_cols = ceil_div(cols, kFp8Block);
    throw Error(ErrorKind::kBadFile,
                {.what = fmt::format("unusable block scale at row block {}, column block {}",
                                     static_cast<int64_t>(i) / square_cols, static_cast<int64_t>(i) % square_cols),
                 .expected = "a finite number below 7e35",
                 .got = fmt::format("{}", scale_inv[i]),
                 .action = "get an undamaged copy of the model"});
  }
  pack_any(DType::kF8E4M3, e4m3, rows, cols, out);
  std::memcpy(out.data() + scales_offset, scale_inv.data(), scale_inv.size_bytes());
}

void quantize_packed(DType type, std::span<const float> values, int64_t rows, int64_t cols, std::span<std::byte> out) {
  if (type == DType::kF8E4M3) {
    throw Error(ErrorKind::kUsage, {.what = "weights can't be quantized to F8_E4M3",
                                    .expected = "BF16, Q8_0, Q6_K, Q4_K or another block format",
                                    .action = "F8_E4M3 keeps the numbers of a checkpoint that is F8_E4M3 already"});
  }
  MORAINE_CHECK(out.size() == packed_bytes(type, rows, cols));
  MORAINE_CHECK(values.size() == static_cast<uint64_t>(rows) * static_cast<uint64_t>(cols));
  clear_padding(type, rows, cols, out);
  with_block_of(type, [&]<typename Block>(Block block) {
    if constexpr (IsGridFormat<Block>) {
      throw Error(ErrorKind::kUsage, {.what = fmt::format("weights can't be quantized to {}", dtype_name(type)),
                                      .expected = "Q3_K, Q2_K or another format with a quantizer",
                                      .action = fmt::format("open a file that holds {}", dtype_name(type))});
    } else if constexpr (!std::is_same_v<Block, ElementE4m3>) {
      for_each_block(type, rows, cols, out.data(), [&](std::byte* group, int64_t row, int64_t r, int64_t b) {
        const float* x = values.data() + row * cols + b * Block::kElements;
        if (!quantize_block(x, block)) throw_unquantizable(type, x, Block::kElements, row, b * Block::kElements);
        scatter(block, group, cols, b, r);
      });
    }
  });
}

void unpack_matrix(const PackedView& matrix, std::span<std::byte> row_major) {
  MORAINE_CHECK(row_major.size() == static_cast<uint64_t>(matrix.rows) * row_bytes(matrix.type, matrix.cols));
  with_block_of(matrix.type, [&]<typename Block>(Block block) {
    const int64_t blocks = matrix.cols / Block::kElements;
    for_each_block(matrix.type, matrix.rows, matrix.cols, matrix.data,
                   [&](const std::byte* group, int64_t row, int64_t r, int64_t b) {
                     gather(group, matrix.cols, b, r, block);
                     const size_t index = static_cast<size_t>(row * blocks + b);
                     std::memcpy(row_major.data() + index * sizeof(Block), &block, sizeof(Block));
                   });
  });
}

void dequantize_packed(const PackedView& matrix, int64_t first_row, int64_t row_count, std::span<float> out) {
  MORAINE_CHECK(first_row >= 0 && row_count >= 0 && first_row + row_count <= matrix.rows);
  MORAINE_CHECK(out.size() == static_cast<size_t>(row_count * matrix.cols));
  const uint64_t group_bytes = packed_group_bytes(matrix.type, matrix.cols);
  const std::byte* scales = matrix.data + static_cast<uint64_t>(matrix.groups()) * group_bytes;  // F8_E4M3 only
  with_block_of(matrix.type, [&]<typename Block>(Block block) {
    float* target = out.data();
    for (int64_t row = first_row; row < first_row + row_count; ++row) {
      const std::byte* group = matrix.data + static_cast<uint64_t>(row / kRowGroup) * group_bytes;
      for (int64_t b = 0; b < matrix.cols / Block::kElements; ++b, target += Block::kElements) {
        gather(group, matrix.cols, b, row % kRowGroup, block);
        if constexpr (std::is_same_v<Block, ElementE4m3>) {
          float scale;
          const int64_t square = row / kFp8Block * ceil_div(matrix.cols, kFp8Block) + b / kFp8Block;
          std::memcpy(&scale, scales + square * 4, 4);
          *target = f32_from_e4m3(block.value) * scale;
        } else {
          dequantize_row(matrix.type, std::as_bytes(std::span(&block, 1)), {target, Block::kElements});
        }
      }
    }
  });
}

DType packable_type(DType wanted, int64_t cols) {
  if (cols % block_elements(wanted) == 0) return wanted;
  if (cols % BlockQ4_0::kElements != 0) return DType::kBF16;
  switch (wanted) {
    case DType::kQ6_K:
      return DType::kQ8_0;
    case DType::kQ5_K:
      return DType::kQ5_0;
    case DType::kQ4_K:
      return DType::kQ4_0;
    default:
      return DType::kIQ4_NL;
  }
}

}  // namespace moraine::quant

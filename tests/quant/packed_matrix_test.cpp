#include "quant/packed_matrix.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "quant/aligned_buffer.h"
#include "quant/block_codes.h"
#include "quant/dequantize.h"
#include "quant/quantize.h"
#include "support/expect_error.h"
#include "support/random_values.h"

namespace moraine::quant {
namespace {

constexpr DType kPackable[] = {DType::kF32,     DType::kF16,   DType::kBF16,    DType::kQ8_0,   DType::kQ4_0,
                               DType::kQ4_1,    DType::kQ5_0,  DType::kQ5_1,    DType::kQ2_K,   DType::kQ3_K,
                               DType::kQ4_K,    DType::kQ5_K,  DType::kQ6_K,    DType::kIQ4_NL, DType::kIQ4_XS,
                               DType::kIQ3_XXS, DType::kIQ3_S, DType::kIQ2_XXS, DType::kIQ2_XS, DType::kIQ2_S,
                               DType::kIQ1_S,   DType::kIQ1_M};
/// Numbers can be quantized to all but the last ones.
constexpr auto kQuantizable = std::span(kPackable).first(15);
constexpr auto kGrids = std::span(kPackable).subspan(15);

bool is_grid(DType type) {
  return std::find(kGrids.begin(), kGrids.end(), type) != kGrids.end();
}

struct Shape {
  int64_t rows, cols;
};

/// One short group, exactly one, one row over; one block and three (an odd number, so that gaps appear); odd columns.
std::vector<Shape> shapes_of(DType type) {
  const int64_t block = block_elements(type);
  std::vector<Shape> shapes = {{1, block}, {7, 3 * block}, {16, block}, {17, 2 * block}, {31, 3 * block}};
  if (block == 1) shapes.insert(shapes.end(), {{3, 7}, {33, 31}});
  return shapes;
}

std::vector<std::byte> row_major_blocks(DType type, Shape shape, uint64_t seed) {
  const auto values = testing::RandomValues(seed).weights(static_cast<size_t>(shape.rows * shape.cols));
  std::vector<std::byte> blocks(static_cast<uint64_t>(shape.rows) * row_bytes(type, shape.cols));
  if (!is_grid(type)) {
    quantize_row(type, values, blocks);
    return blocks;
  }
  testing::RandomValues random(seed);
  for (std::byte& byte : blocks) byte = static_cast<std::byte>(random.bits());
  const size_t block_bytes = row_bytes(type, 256);
  for (size_t at = 0; at < blocks.size(); at += block_bytes) {
    // A finite d: the first two bytes, in IQ1_M the top nibbles of the last four 16-bit numbers.
    if (type == DType::kIQ1_M) {
      blocks[at + 55] &= std::byte{0xbf};
    } else {
      blocks[at + 1] &= std::byte{0xbf};
    }
  }
  return blocks;
}

/// A buffer full of rubbish, so that padding which is not written shows.
AlignedBuffer buffer_for(DType type, Shape shape) {
  AlignedBuffer buffer(packed_bytes(type, shape.rows, shape.cols));
  std::memset(buffer.data(), 0xab, buffer.size());
  return buffer;
}

TEST(PackedMatrix, UnpackIsTheInverseOfPack) {
  for (const DType type : kPackable) {
    for (const Shape shape : shapes_of(type)) {
      const auto blocks = row_major_blocks(type, shape, 1);
      AlignedBuffer packed = buffer_for(type, shape);
      pack_matrix(type, blocks, shape.rows, shape.cols, packed.span());
      std::vector<std::byte> back(blocks.size());
      unpack_matrix({type, shape.rows, shape.cols, packed.data()}, back);
      EXPECT_EQ(back, blocks) << dtype_name(type) << " " << shape.rows << "x" << shape.cols;
    }
  }
}

TEST(PackedMatrix, KeepsTheMeaningOfEveryRow) {
  for (const DType type : kPackable) {
    for (const Shape shape : shapes_of(type)) {
      const auto blocks = row_major_blocks(type, shape, 2);
      AlignedBuffer packed = buffer_for(type, shape);
      pack_matrix(type, blocks, shape.rows, shape.cols, packed.span());
      std::vector<float> wanted(static_cast<size_t>(shape.rows * shape.cols)), got(wanted.size());
      dequantize_row(type, blocks, wanted);
      dequantize_packed({type, shape.rows, shape.cols, packed.data()}, 0, shape.rows, got);
      EXPECT_EQ(got, wanted) << dtype_name(type);
      std::vector<float> last(static_cast<size_t>(shape.cols));
      dequantize_packed({type, shape.rows, shape.cols, packed.data()}, shape.rows - 1, 1, last);
      EXPECT_TRUE(std::equal(last.begin(), last.end(), wanted.end() - shape.cols)) << dtype_name(type);
    }
  }
}

TEST(PackedMatrix, QuantizingAndPackingInOneStepGivesTheSameBytes) {
  for (const DType type : kQuantizable) {
    for (const Shape shape : shapes_of(type)) {
      const auto values = testing::RandomValues(3).weights(static_cast<size_t>(shape.rows * shape.cols));
      std::vector<std::byte> blocks(static_cast<uint64_t>(shape.rows) * row_bytes(type, shape.cols));
      quantize_row(type, values, blocks);
      AlignedBuffer in_two = buffer_for(type, shape);
      AlignedBuffer in_one = buffer_for(type, shape);
      pack_matrix(type, blocks, shape.rows, shape.cols, in_two.span());
      quantize_packed(type, values, shape.rows, shape.cols, in_one.span());
      EXPECT_EQ(std::memcmp(in_one.data(), in_two.data(), in_one.size()), 0) << dtype_name(type);
    }
  }
}

uint8_t byte_at(const AlignedBuffer& buffer, int64_t offset) {
  return static_cast<uint8_t>(buffer.data()[offset]);
}

uint16_t half_at(const AlignedBuffer& buffer, int64_t offset) {
  uint16_t half;
  std::memcpy(&half, buffer.data() + offset, 2);
  return half;
}

template <typename Block>
Block block_at(const std::vector<std::byte>& blocks, int64_t index) {
  Block block;
  std::memcpy(&block, blocks.data() + static_cast<size_t>(index) * sizeof(Block), sizeof(Block));
  return block;
}

/// The documented order, spelled out index by index: the kernels read these very offsets.
TEST(PackedMatrix, Q8OrderIsAsDocumented) {
  const Shape shape{20, 96};
  const auto blocks = row_major_blocks(DType::kQ8_0, shape, 4);
  AlignedBuffer packed = buffer_for(DType::kQ8_0, shape);
  pack_matrix(DType::kQ8_0, blocks, shape.rows, shape.cols, packed.span());
  ASSERT_EQ(packed_group_bytes(DType::kQ8_0, 96), 1664u);  // 3 × (512 + 32) = 1632, up to a multiple of 64
  for (int64_t row = 0; row < shape.rows; ++row) {
    const int64_t group = row / 16 * 1664;
    for (int64_t col = 0; col < shape.cols; ++col) {
      const auto block = block_at<BlockQ8_0>(blocks, row * 3 + col / 32);
      const int64_t at = group + col / 32 * 512 + col % 32 / 4 * 64 + row % 16 * 4 + col % 4;
      ASSERT_EQ(static_cast<int8_t>(byte_at(packed, at)), block.q[col % 32]) << row << "," << col;
      ASSERT_EQ(half_at(packed, group + 3 * 512 + col / 32 * 32 + row % 16 * 2), block.d);
    }
  }
}

TEST(PackedMatrix, Q40OrderIsAsDocumented) {
  const Shape shape{20, 96};
  const auto blocks = row_major_blocks(DType::kQ4_0, shape, 5);
  AlignedBuffer packed = buffer_for(DType::kQ4_0, shape);
  pack_matrix(DType::kQ4_0, blocks, shape.rows, shape.cols, packed.span());
  ASSERT_EQ(packed_group_bytes(DType::kQ4_0, 96), 896u);  // 3 × (256 + 32) = 864
  for (int64_t row = 0; row < shape.rows; ++row) {
    const int64_t group = row / 16 * 896;
    for (int64_t col = 0; col < shape.cols; ++col) {
      const auto block = block_at<BlockQ4_0>(blocks, row * 3 + col / 32);
      const int64_t c = col % 32;
      const int wanted = c < 16 ? block.codes[c] & 15 : block.codes[c - 16] >> 4;
      const uint8_t byte = byte_at(packed, group + col / 32 * 256 + c / 8 * 64 + row % 16 * 4 + c % 4);
      ASSERT_EQ(c % 8 < 4 ? byte & 15 : byte >> 4, wanted) << row << "," << col;
      ASSERT_EQ(half_at(packed, group + 3 * 256 + col / 32 * 32 + row % 16 * 2), block.d);
    }
  }
}

TEST(PackedMatrix, Q4KOrderIsAsDocumented) {
  const Shape shape{20, 512};
  const auto blocks = row_major_blocks(DType::kQ4_K, shape, 6);
  AlignedBuffer packed = buffer_for(DType::kQ4_K, shape);
  pack_matrix(DType::kQ4_K, blocks, shape.rows, shape.cols, packed.span());
  ASSERT_EQ(packed_group_bytes(DType::kQ4_K, 512), 2u * 2304u);
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t col = 0; col < shape.cols; ++col) {
      const auto block = block_at<BlockQ4_K>(blocks, row * 2 + col / 256);
      const int64_t super = row / 16 * 4608 + col / 256 * 2304;
      const int64_t r = row % 16;
      const int64_t c = col % 256;
      ASSERT_EQ(half_at(packed, super + 2 * r), block.d);
      ASSERT_EQ(half_at(packed, super + 32 + 2 * r), block.dmin);
      for (int64_t i = 0; i < 12; ++i) ASSERT_EQ(byte_at(packed, super + 64 + 16 * i + r), block.scales[i]);
      const int wanted = (block.codes[c / 64 * 32 + c % 32] >> (c / 32 % 2 * 4)) & 15;
      const uint8_t byte = byte_at(packed, super + 256 + c / 8 * 64 + r * 4 + c % 4);
      ASSERT_EQ(c % 8 < 4 ? byte & 15 : byte >> 4, wanted) << row << "," << col;
    }
  }
}

/// Where the formats with N, P and B parts (packed_matrix.h) keep the code of one column.
struct CodeOrder {
  DType type;
  const char* parts;
  int64_t header_bytes;  // of a row before the codes of a super-block
};

int code_at(const AlignedBuffer& packed, const CodeOrder& order, int64_t base, int64_t r, int64_t c) {
  int code = 0, shift = 0;
  for (const char* part = order.parts; *part != 0; ++part) {
    const auto at = [&](int64_t quad) { return byte_at(packed, base + (quad * 16 + r) * 4 + c % 4); };
    if (*part == 'N') {
      code |= (at(c / 8) >> (c % 8 / 4 * 4) & 15) << shift;
      shift += 4;
      base += 4 * 64;
    } else if (*part == 'P') {
      code |= (at(c / 16) >> (c % 16 / 4 * 2) & 3) << shift;
      shift += 2;
      base += 2 * 64;
    } else {
      code |= (at(0) >> (c / 4) & 1) << shift;
      base += 64;
    }
  }
  return code;
}

int64_t code_bytes_of(const CodeOrder& order) {
  int64_t bytes = 0;
  for (const char* part = order.parts; *part != 0; ++part) bytes += *part == 'N' ? 256 : *part == 'P' ? 128 : 64;
  return bytes;
}

template <typename Block>
void expect_code_order(const CodeOrder& order, const Shape shape) {
  const auto blocks = row_major_blocks(order.type, shape, 6);
  AlignedBuffer packed = buffer_for(order.type, shape);
  pack_matrix(order.type, blocks, shape.rows, shape.cols, packed.span());
  const auto group_bytes = static_cast<int64_t>(packed_group_bytes(order.type, shape.cols));
  constexpr int64_t kCols = Block::kElements;
  const int64_t super_bytes = order.header_bytes * 16 + kCols / 32 * code_bytes_of(order);
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t b = 0; b < shape.cols / kCols; ++b) {
      const auto block = block_at<Block>(blocks, row * (shape.cols / kCols) + b);
      uint8_t codes[kCols];
      read_codes(block, codes);
      const int64_t super = row / 16 * group_bytes + b * super_bytes;
      for (int64_t c = 0; c < kCols; ++c) {
        const int64_t base = super + order.header_bytes * 16 + c / 32 * code_bytes_of(order);
        ASSERT_EQ(code_at(packed, order, base, row % 16, c % 32), codes[c]) << dtype_name(order.type) << " " << c;
      }
    }
  }
}

TEST(PackedMatrix, CodesLieAsDocumented) {
  expect_code_order<BlockQ4_1>({DType::kQ4_1, "N", 0}, {20, 96});
  expect_code_order<BlockQ5_0>({DType::kQ5_0, "NB", 0}, {20, 96});
  expect_code_order<BlockQ5_1>({DType::kQ5_1, "NB", 0}, {20, 96});
  expect_code_order<BlockIQ4_NL>({DType::kIQ4_NL, "N", 0}, {20, 96});
  expect_code_order<BlockQ2_K>({DType::kQ2_K, "P", 20}, {20, 768});
  expect_code_order<BlockQ3_K>({DType::kQ3_K, "PB", 12}, {20, 768});
  expect_code_order<BlockQ4_K>({DType::kQ4_K, "N", 16}, {20, 768});
  expect_code_order<BlockQ5_K>({DType::kQ5_K, "NB", 16}, {20, 768});
  expect_code_order<BlockQ6_K>({DType::kQ6_K, "NP", 16}, {20, 768});
  expect_code_order<BlockIQ4_XS>({DType::kIQ4_XS, "N", 8}, {20, 768});
}

TEST(PackedMatrix, ScalesOfSuperBlocksLieAsDocumented) {
  const Shape shape{20, 768};
  for (int64_t row : {0, 3, 17}) {
    const int64_t r = row % 16;
    for (int64_t b = 0; b < 3; ++b) {
      const auto packed_as = [&](DType type) {
        AlignedBuffer packed = buffer_for(type, shape);
        pack_matrix(type, row_major_blocks(type, shape, 6), shape.rows, shape.cols, packed.span());
        return packed;
      };
      const auto q6 = block_at<BlockQ6_K>(row_major_blocks(DType::kQ6_K, shape, 6), row * 3 + b);
      const AlignedBuffer q6_packed = packed_as(DType::kQ6_K);
      const int64_t q6_group = row / 16 * static_cast<int64_t>(packed_group_bytes(DType::kQ6_K, 768));
      EXPECT_EQ(static_cast<int8_t>(byte_at(q6_packed, q6_group + b * 3328 + 5 * 16 + r)), q6.scales[5]);
      EXPECT_EQ(half_at(q6_packed, q6_group + 3 * 3328 + b * 32 + 2 * r), q6.d);

      const auto q3 = block_at<BlockQ3_K>(row_major_blocks(DType::kQ3_K, shape, 6), row * 3 + b);
      const AlignedBuffer q3_packed = packed_as(DType::kQ3_K);
      const int64_t q3_group = row / 16 * static_cast<int64_t>(packed_group_bytes(DType::kQ3_K, 768));
      EXPECT_EQ(byte_at(q3_packed, q3_group + b * 1728 + 11 * 16 + r), q3.scales[11]);
      EXPECT_EQ(half_at(q3_packed, q3_group + 3 * 1728 + b * 32 + 2 * r), q3.d);

      const auto q2 = block_at<BlockQ2_K>(row_major_blocks(DType::kQ2_K, shape, 6), row * 3 + b);
      const AlignedBuffer q2_packed = packed_as(DType::kQ2_K);
      const int64_t q2_super = row / 16 * 3 * 1344 + b * 1344;
      EXPECT_EQ(half_at(q2_packed, q2_super + 2 * r), q2.d);
      EXPECT_EQ(half_at(q2_packed, q2_super + 32 + 2 * r), q2.dmin);
      EXPECT_EQ(byte_at(q2_packed, q2_super + 64 + 9 * 16 + r), q2.scales[9]);

      const auto iq4 = block_at<BlockIQ4_XS>(row_major_blocks(DType::kIQ4_XS, shape, 6), row * 3 + b);
      const AlignedBuffer iq4_packed = packed_as(DType::kIQ4_XS);
      const int64_t iq4_super = row / 16 * 3 * 2176 + b * 2176;
      EXPECT_EQ(half_at(iq4_packed, iq4_super + 2 * r), iq4.d);
      EXPECT_EQ(byte_at(iq4_packed, iq4_super + 32 + 16 + r), iq4.scales_high >> 8);
      EXPECT_EQ(byte_at(iq4_packed, iq4_super + 64 + 2 * 16 + r), iq4.scales_low[2]);
    }
  }
}

TEST(PackedMatrix, GridBlocksLieSideBySide) {
  const Shape shape{20, 512};
  const auto blocks = row_major_blocks(DType::kIQ2_XXS, shape, 3);
  AlignedBuffer packed = buffer_for(DType::kIQ2_XXS, shape);
  pack_matrix(DType::kIQ2_XXS, blocks, shape.rows, shape.cols, packed.span());
  ASSERT_EQ(packed_group_bytes(DType::kIQ2_XXS, 512), 2u * 16 * 66);
  EXPECT_EQ(std::memcmp(packed.data() + 2 * 16 * 66 + (16 + 2) * 66, blocks.data() + (18 * 2 + 1) * 66, 66), 0);
}

TEST(PackedMatrix, PlainOrdersAreAsDocumented) {
  const Shape shape{18, 5};
  const auto floats = row_major_blocks(DType::kF32, shape, 7);
  const auto halves = row_major_blocks(DType::kBF16, shape, 7);
  AlignedBuffer packed_floats = buffer_for(DType::kF32, shape);
  AlignedBuffer packed_halves = buffer_for(DType::kBF16, shape);
  pack_matrix(DType::kF32, floats, shape.rows, shape.cols, packed_floats.span());
  pack_matrix(DType::kBF16, halves, shape.rows, shape.cols, packed_halves.span());
  ASSERT_EQ(packed_halves.size(), 2u * 3 * 64);
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t col = 0; col < shape.cols; ++col) {
      const int64_t at = row / 16 * 320 + (col * 16 + row % 16) * 4;
      ASSERT_EQ(std::memcmp(packed_floats.data() + at, floats.data() + (row * 5 + col) * 4, 4), 0);
      const int64_t half = row / 16 * 192 + col / 2 * 64 + row % 16 * 4 + col % 2 * 2;
      ASSERT_EQ(half_at(packed_halves, half), block_at<uint16_t>(halves, row * 5 + col));
    }
    ASSERT_EQ(half_at(packed_halves, row / 16 * 192 + 2 * 64 + row % 16 * 4 + 2), 0) << "pad of the odd column";
  }
}

TEST(PackedMatrix, RowsOfPaddingAreZero) {
  for (const DType type : kQuantizable) {
    const int64_t cols = 3 * block_elements(type);
    const std::vector<float> ones(static_cast<size_t>(cols), 1.0f);
    AlignedBuffer packed = buffer_for(type, {1, cols});
    quantize_packed(type, ones, 1, cols, packed.span());
    const PackedView all_rows{type, 16, cols, packed.data()};  // the same bytes, seen as a full group
    std::vector<float> values(static_cast<size_t>(16 * cols));
    dequantize_packed(all_rows, 0, 16, values);
    for (size_t i = static_cast<size_t>(cols); i < values.size(); ++i) ASSERT_EQ(values[i], 0.0f) << dtype_name(type);
    AlignedBuffer full = buffer_for(type, {16, cols});
    quantize_packed(type, std::vector<float>(static_cast<size_t>(16 * cols), 1.0f), 16, cols, full.span());
    for (const AlignedBuffer* matrix : {&packed, &full}) {
      for (uint64_t i = row_bytes(type, cols) * 16; i < packed_group_bytes(type, cols); ++i) {
        ASSERT_TRUE(type == DType::kBF16 || matrix->data()[i] == std::byte{0}) << dtype_name(type) << " gap at " << i;
      }
    }
  }
}

// ---- F8_E4M3 --------------------------------------------------------------------------------------------------------

struct Fp8Matrix {
  int64_t rows, cols;
  std::vector<std::byte> bytes;  // [rows, cols]
  std::vector<float> scales;     // [ceil(rows/128), ceil(cols/128)]
};

Fp8Matrix fp8_matrix(int64_t rows, int64_t cols) {
  testing::RandomValues random(8);
  Fp8Matrix matrix{rows, cols, {}, {}};
  for (int64_t i = 0; i < rows * cols; ++i) {
    const auto byte = static_cast<uint8_t>(random.bits());
    matrix.bytes.push_back(static_cast<std::byte>((byte & 0x7f) == 0x7f ? 0 : byte));
  }
  for (int64_t i = 0; i < (rows + 127) / 128 * ((cols + 127) / 128); ++i) {
    matrix.scales.push_back(static_cast<float>(random.uniform() + 0.1) * 1e-3f);
  }
  return matrix;
}

TEST(PackedMatrix, Fp8KeepsBytesScalesAndMeaning) {
  for (const Shape shape : {Shape{1, 1}, Shape{17, 31}, Shape{130, 257}, Shape{128, 128}}) {
    const Fp8Matrix matrix = fp8_matrix(shape.rows, shape.cols);
    AlignedBuffer packed = buffer_for(DType::kF8E4M3, shape);
    pack_fp8(matrix.bytes, matrix.scales, shape.rows, shape.cols, packed.span());
    const PackedView view{DType::kF8E4M3, shape.rows, shape.cols, packed.data()};

    std::vector<std::byte> back(matrix.bytes.size());
    unpack_matrix(view, back);
    EXPECT_EQ(back, matrix.bytes);
    const uint64_t scales_at = packed_fp8_scales_offset(shape.rows, shape.cols);
    EXPECT_EQ(scales_at % 64, 0u);
    EXPECT_EQ(packed.size() % 64, 0u);
    EXPECT_EQ(std::memcmp(packed.data() + scales_at, matrix.scales.data(), matrix.scales.size() * 4), 0);
    EXPECT_EQ(packed.data()[(shape.cols - 1) * 16], matrix.bytes[static_cast<size_t>(shape.cols - 1)]);

    std::vector<float> wanted(matrix.bytes.size()), got(wanted.size());
    dequantize_fp8(matrix.bytes, matrix.scales, shape.rows, shape.cols, wanted);
    dequantize_packed(view, 0, shape.rows, got);
    EXPECT_EQ(got, wanted);
  }
}

TEST(PackedMatrix, Fp8RefusesNanWeightsAndBadScales) {
  Fp8Matrix matrix = fp8_matrix(130, 257);
  AlignedBuffer packed = buffer_for(DType::kF8E4M3, {130, 257});
  const auto pack = [&] { pack_fp8(matrix.bytes, matrix.scales, 130, 257, packed.span()); };
  for (const int nan : {0x7f, 0xff}) {
    const std::byte before = std::exchange(matrix.bytes[129 * 257 + 5], static_cast<std::byte>(nan));
    testing::expect_error(ErrorKind::kBadFile, {"row 129, column 5", "nan"}, pack);
    matrix.bytes[129 * 257 + 5] = before;
  }
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float bad : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN(), 3e38f}) {
    matrix.scales[4] = bad;
    testing::expect_error(ErrorKind::kBadFile, {"row block 1, column block 1"}, pack);
  }
  matrix.scales[4] = -0.0f;
  EXPECT_NO_THROW(pack());
}

// ---- refusals -------------------------------------------------------------------------------------------------------

TEST(PackedMatrix, RefusesBlocksWhoseScaleIsNotFinite) {
  // Where each block keeps its f16 numbers.
  const std::vector<std::pair<DType, std::vector<size_t>>> fields = {
      {DType::kQ8_0, {0}},    {DType::kQ4_0, {0}},      {DType::kQ4_1, {0, 2}}, {DType::kQ5_0, {0}},
      {DType::kQ5_1, {0, 2}}, {DType::kQ2_K, {80, 82}}, {DType::kQ3_K, {108}},  {DType::kQ4_K, {0, 2}},
      {DType::kQ5_K, {0, 2}}, {DType::kQ6_K, {208}},    {DType::kIQ4_NL, {0}},  {DType::kIQ4_XS, {0}},
      {DType::kIQ3_XXS, {0}}, {DType::kIQ3_S, {0}},     {DType::kIQ2_XXS, {0}}, {DType::kIQ2_XS, {0}},
      {DType::kIQ2_S, {0}},   {DType::kIQ1_S, {0}}};
  for (const auto& [type, offsets] : fields) {
    const Shape shape{18, 2 * block_elements(type)};
    AlignedBuffer packed = buffer_for(type, shape);
    const uint64_t block_bytes = row_bytes(type, block_elements(type));
    for (const uint16_t bad : {uint16_t{0x7c00}, uint16_t{0xfc00}, uint16_t{0x7e00}}) {
      for (const size_t field : offsets) {
        auto blocks = row_major_blocks(type, shape, 9);
        std::memcpy(blocks.data() + (17 * 2 + 1) * block_bytes + field, &bad, 2);
        testing::expect_error(ErrorKind::kBadFile, {"row 17", std::to_string(block_elements(type))},
                              [&, type = type] { pack_matrix(type, blocks, shape.rows, shape.cols, packed.span()); });
      }
    }
  }
}

TEST(PackedMatrix, RefusesTheScatteredScaleOfIq1M) {
  const Shape shape{18, 512};
  AlignedBuffer packed = buffer_for(DType::kIQ1_M, shape);
  auto blocks = row_major_blocks(DType::kIQ1_M, shape, 9);
  blocks[35 * 56 + 53] |= std::byte{0xf0};  // the f16's bits 8 – 15: 0xff
  blocks[35 * 56 + 55] |= std::byte{0xf0};
  testing::expect_error(ErrorKind::kBadFile, {"row 17", "256"},
                        [&] { pack_matrix(DType::kIQ1_M, blocks, shape.rows, shape.cols, packed.span()); });
}

TEST(PackedMatrix, GridFormatsCanNotBeMade) {
  for (const DType type : kGrids) {
    AlignedBuffer packed = buffer_for(type, {1, 256});
    testing::expect_error(ErrorKind::kUsage, {dtype_name(type)},
                          [&] { quantize_packed(type, std::vector<float>(256, 1.0f), 1, 256, packed.span()); });
  }
}

TEST(PackedMatrix, RefusesPlainNumbersThatAreNotFinite) {
  const std::vector<float> values = {1, 2, 3, std::numeric_limits<float>::infinity()};
  AlignedBuffer packed = buffer_for(DType::kF32, {2, 2});
  testing::expect_error(ErrorKind::kBadFile, {"row 1, column 1", "inf"},
                        [&] { pack_matrix(DType::kF32, std::as_bytes(std::span(values)), 2, 2, packed.span()); });
}

TEST(PackedMatrix, QuantizingNamesThePlaceOfABadWeight) {
  for (const DType type : kQuantizable) {
    const int64_t cols = 3 * block_elements(type);
    std::vector<float> values(static_cast<size_t>(20 * cols), 0.5f);
    values[static_cast<size_t>(18 * cols + 2)] = std::numeric_limits<float>::quiet_NaN();
    AlignedBuffer packed = buffer_for(type, {20, cols});
    testing::expect_error(ErrorKind::kBadFile, {"row 18, column 2", dtype_name(type), "nan"},
                          [&] { quantize_packed(type, values, 20, cols, packed.span()); });
  }
  AlignedBuffer fp8 = buffer_for(DType::kF8E4M3, {1, 1});
  testing::expect_error(ErrorKind::kUsage, {"F8_E4M3"},
                        [&] { quantize_packed(DType::kF8E4M3, std::vector<float>{1.0f}, 1, 1, fp8.span()); });
}

TEST(PackedMatrix, SizesAreMultiplesOf64AndRefuseImpossibleShapes) {
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF8E4M3, DType::kQ8_0, DType::kQ4_0, DType::kQ4_K}) {
    for (const Shape shape : shapes_of(type)) {
      EXPECT_EQ(packed_group_bytes(type, shape.cols) % 64, 0u);
      EXPECT_EQ(packed_bytes(type, shape.rows, shape.cols) % 64, 0u);
    }
    const int64_t most = std::numeric_limits<int64_t>::max();
    const int64_t wide = int64_t{1} << 28;
    for (const Shape bad : {Shape{0, 256}, Shape{-16, 256}, Shape{16, 0}, Shape{16, -256}, Shape{most, 256},
                            Shape{256, most / 256 * 256}, Shape{wide, wide}}) {
      testing::expect_error(ErrorKind::kBadFile, {dtype_name(type)}, [&] { packed_bytes(type, bad.rows, bad.cols); });
    }
  }
  testing::expect_error(ErrorKind::kBadFile, {"Q4_K", "256"}, [] { packed_bytes(DType::kQ4_K, 16, 128); });
  EXPECT_EQ(packed_bytes(DType::kF16, 16, 128), 16u * 128 * 2);
  testing::expect_error(ErrorKind::kBadFile, {"I64"}, [] { packed_group_bytes(DType::kI64, 128); });
  EXPECT_EQ(packed_bytes(DType::kQ4_K, 2048, 7168), 2048u * 7168 / 256 * 144);
}

TEST(PackedMatrix, PackableTypeFallsBackByWidth) {
  EXPECT_EQ(packable_type(DType::kQ4_K, 256), DType::kQ4_K);
  EXPECT_EQ(packable_type(DType::kQ4_K, 128), DType::kQ4_0);
  EXPECT_EQ(packable_type(DType::kQ4_K, 100), DType::kBF16);
  EXPECT_EQ(packable_type(DType::kQ6_K, 128), DType::kQ8_0);
  EXPECT_EQ(packable_type(DType::kQ5_K, 128), DType::kQ5_0);
  for (const DType small : {DType::kQ3_K, DType::kQ2_K, DType::kIQ4_XS, DType::kIQ2_XXS}) {
    EXPECT_EQ(packable_type(small, 128), DType::kIQ4_NL);
    EXPECT_EQ(packable_type(small, 512), small);
  }
  EXPECT_EQ(packable_type(DType::kQ8_0, 96), DType::kQ8_0);
  EXPECT_EQ(packable_type(DType::kQ8_0, 100), DType::kBF16);
  EXPECT_EQ(packable_type(DType::kBF16, 7), DType::kBF16);
  EXPECT_EQ(packable_type(DType::kF8E4M3, 100), DType::kF8E4M3);
}

}  // namespace
}  // namespace moraine::quant

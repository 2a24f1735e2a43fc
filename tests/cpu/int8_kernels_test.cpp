#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "cpu/isa.h"
#include "cpu/kernels.h"
#include "cpu/matmul.h"
#include "cpu/quantized_rows.h"
#include "quant/dequantize.h"
#include "quant/grid_octets.h"
#include "quant/packed_blocks.h"
#include "quant/visit_block_format.h"
#include "support/random_matrix.h"
#include "support/same_bits.h"
#include "support/tolerance.h"

// The int8 kernels (kernels_scalar_int8.cpp, kernels_int8_impl.h): every instruction set against the definition bit by
// bit, the definition against f64.
namespace moraine::cpu {
namespace {

using quant::DType;
using testing::same_bits;

constexpr DType kTypes[] = {DType::kQ8_0,   DType::kQ4_0,   DType::kQ4_1,    DType::kQ5_0,  DType::kQ5_1,
                            DType::kQ2_K,   DType::kQ3_K,   DType::kQ4_K,    DType::kQ5_K,  DType::kQ6_K,
                            DType::kIQ4_NL, DType::kIQ4_XS, DType::kIQ3_XXS, DType::kIQ3_S, DType::kIQ2_XXS,
                            DType::kIQ2_XS, DType::kIQ2_S,  DType::kIQ1_S,   DType::kIQ1_M};

/// The numbers of one row of activations, in the order of its columns.
struct Row {
  std::vector<int8_t> q;                  // [cols]
  std::vector<float> scales;              // [groups]
  std::vector<int16_t> minus_sums;        // [groups][16]
  std::vector<int16_t> minus_block_sums;  // [groups][8]
  std::vector<int16_t> pairs;             // [cols], each column's where it belongs; empty if there are none
};

/// Rows of `cols` activations in int8, quantized by `kernels` in the order that they want.
struct Activations {
  FloatBuffer memory;
  Int8Rows rows;

  Row row(int64_t r) const {
    Row out;
    for (int64_t c = 0; c < rows.groups() * kInt8Columns; ++c) {
      const int64_t at = rows.q_at(r, c / kInt8Columns, c % kInt8Columns / 64);
      out.q.push_back(rows.q[at + c % 64]);
      if (rows.pairs != nullptr) {
        out.pairs.push_back(rows.pairs[at + c % 2 * 32 + c % 64 / 4 * 2 + c % 4 / 2]);
      }
    }
    for (int64_t group = 0; group < rows.groups(); ++group) {
      out.scales.push_back(rows.scales[rows.at(r, group)]);
      const int16_t* sums = rows.minus_sums + 16 * rows.at(r, group);
      out.minus_sums.insert(out.minus_sums.end(), sums, sums + 16);
      const int16_t* block_sums = rows.minus_block_sums + 8 * rows.at(r, group);
      out.minus_block_sums.insert(out.minus_block_sums.end(), block_sums, block_sums + 8);
    }
    return out;
  }
};

/// The first `tokens` rows of x.
Activations quantize(const KernelTable& kernels, const std::vector<float>& x, int64_t cols, int64_t tokens) {
  Activations result;
  result.rows = place_int8_rows(kernels, result.memory.get(int8_rows_floats(kernels, tokens, cols)), tokens, cols);
  for (int64_t t = 0; t < tokens; ++t) kernels.quantize_activations(x.data() + t * cols, result.rows, t);
  return result;
}

/// The first `tokens` rows of x times the matrix: [tokens, rows rounded up to 16].
std::vector<float> multiply(const KernelTable& kernels, const quant::PackedView& matrix, const std::vector<float>& x,
                            int64_t tokens) {
  WorkerScratch scratch;
  const int64_t stride = matrix.groups() * kLanes;
  std::vector<float> out(static_cast<size_t>(tokens * stride), -1.0f);
  const Workers workers(kernels, 1);
  const Activations quantized = quantize(kernels, x, matrix.cols, tokens);
  const KernelScope scope(kernels);
  multiply_groups_int8(kernels, *int8_format(workers, matrix), scratch, matrix, 0, matrix.groups(), quantized.rows,
                       out.data(), stride);
  return out;
}

/// The largest |scale| and |minimum| that columns 32·b … 32·b + 31 of a row have, for the codes of the int8 kernels.
struct BlockRange {
  double scale = 0.0, minimum = 0.0;
};

template <typename Block>
BlockRange range_of(const Block& block, int sub) {
  if constexpr (quant::IsGridFormat<Block>) {
    const float d = quant::f32_from_f16(quant::grid_d(block));
    return {std::max(std::abs(double{quant::grid_scale(block, d, 2 * sub)}),
                     std::abs(double{quant::grid_scale(block, d, 2 * sub + 1)}))};
  } else {
    const double d = std::abs(double{quant::f32_from_f16(block.d)});
    if constexpr (requires { block.m; }) {
      return {d, std::abs(double{quant::f32_from_f16(block.m)})};
    } else if constexpr (std::is_same_v<Block, quant::BlockQ2_K>) {
      const int minimum = std::max(block.scales[2 * sub] >> 4, block.scales[2 * sub + 1] >> 4);
      return {d, std::abs(double{quant::f32_from_f16(block.dmin)} * minimum)};
    } else if constexpr (std::is_same_v<Block, quant::BlockQ3_K>) {
      return {d / 8.0 *
              std::max(std::abs(quant::q3_k_scale(block.scales, 2 * sub) - 32),
                       std::abs(quant::q3_k_scale(block.scales, 2 * sub + 1) - 32))};
    } else if constexpr (requires { block.dmin; }) {
      const quant::ScaleMin bits = quant::q4_k_scale_min(block.scales, sub);
      return {d * bits.scale, std::abs(double{quant::f32_from_f16(block.dmin)}) * bits.min};
    } else if constexpr (std::is_same_v<Block, quant::BlockQ6_K>) {
      return {d * std::max(std::abs(int{block.scales[2 * sub]}), std::abs(int{block.scales[2 * sub + 1]}))};
    } else if constexpr (std::is_same_v<Block, quant::BlockIQ4_XS>) {
      return {d * std::abs(quant::iq4_xs_scale(block, sub) - 32)};
    } else if constexpr (std::is_same_v<Block, quant::BlockQ5_0>) {
      return {d / 8.0};
    } else {
      return {d};
    }
  }
}

BlockRange range_of(const quant::PackedView& matrix, int64_t row, int64_t b) {
  const std::byte* group =
      matrix.data + static_cast<uint64_t>(row / 16) * quant::packed_group_bytes(matrix.type, matrix.cols);
  return quant::visit_block_format(
      matrix.type,
      [&]<typename Block>(Block block) {
        constexpr int64_t kSubs = Block::kElements / 32;
        quant::gather(group, matrix.cols, b / kSubs, row % 16, block);
        return range_of(block, static_cast<int>(b % kSubs));
      },
      [] { return BlockRange{}; });
}

/// How far a weight of columns 256·group … of a row may be from what the int8 kernels take it for (Int8Format).
double weight_error(const quant::PackedView& matrix, int64_t row, int64_t group) {
  BlockRange range;
  for (int64_t b = 8 * group; b < std::min(matrix.cols / 32, 8 * (group + 1)); ++b) {
    const BlockRange block = range_of(matrix, row, b);
    range.scale = std::max(range.scale, block.scale);
    range.minimum = std::max(range.minimum, block.minimum);
  }
  const auto codes = [&](double largest) {
    // Half a unit for the scale, as often as the code says, and half a unit for the minimum.
    return (largest * range.scale + range.minimum) / 32730.0 * (largest / 2.0 + 0.5);
  };
  // Only what rounds: two sums, their products and the difference.
  const auto exact = [&](double largest) {
    return testing::gamma(4, testing::kUnitF32) * (largest * range.scale + range.minimum);
  };
  switch (matrix.type) {
    case DType::kQ4_0:
      return codes(8.0);
    case DType::kQ4_1:
      return codes(15.0);
    case DType::kQ5_1:
      return codes(31.0);
    case DType::kQ4_K:
      return exact(15.0);
    case DType::kQ5_K:
      return exact(31.0);
    case DType::kQ2_K:
      return codes(45.0);
    case DType::kQ3_K:
    case DType::kQ6_K:
      return codes(32.0);
    case DType::kIQ2_XS:
    case DType::kIQ2_S:
    case DType::kIQ1_M:
      return codes(64.0);
    default:
      // Signed bytes: half a unit for the scale's fraction, a 128th of which counts up to 128 times, and half a unit.
      return range.scale * 128.0 / 32767.0;
  }
}

class Int8Kernels : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!isa_available(GetParam())) GTEST_SKIP() << "this machine lacks the instruction set";
    kernels_ = &select_kernels(GetParam());
  }

  const KernelTable* kernels_ = nullptr;
  const KernelTable& scalar_ = scalar_kernels();
  testing::RandomValues random_{11};
};

TEST_P(Int8Kernels, QuantizingEqualsTheDefinition) {
  const auto expect_same = [&](const std::vector<float>& x, int64_t cols) {
    const int64_t tokens = std::ssize(x) / cols;
    const Activations actual = quantize(*kernels_, x, cols, tokens), expected = quantize(scalar_, x, cols, tokens);
    for (int64_t t = 0; t < tokens; ++t) {
      SCOPED_TRACE(t);
      const Row a = actual.row(t), e = expected.row(t);
      EXPECT_EQ(a.q, e.q);
      EXPECT_EQ(a.minus_sums, e.minus_sums);
      EXPECT_EQ(a.minus_block_sums, e.minus_block_sums);
      EXPECT_TRUE(same_bits(a.scales, e.scales));
      EXPECT_EQ(actual.rows.pairs != nullptr, tokens <= kernels_->int8_stream_rows || !kernels_->int8_limbs);
      if (actual.rows.pairs != nullptr) {
        EXPECT_EQ(a.pairs, e.pairs);
      }
    }
  };
  for (const double deviation : {1e-42, 1e-37, 3e-36, 1e-20, 1.0, 1e30}) {
    for (const int64_t cols : {32, 96, 256, 288, 512}) {
      for (const int64_t tokens : {1, 3, 16, 21}) {
        std::vector<float> x = testing::random_values(tokens * cols, deviation, random_);
        std::fill_n(x.begin() + (tokens - 1) * cols, cols, 0.0f);
        expect_same(x, cols);
      }
    }
  }
  // Halves between two integers, the largest float, both zeros.
  std::vector<float> x(512);
  for (size_t i = 0; i < 256; ++i) x[i] = static_cast<float>(i % 128) - 63.5f;
  x[0] = 127.0f;
  x[256] = -std::numeric_limits<float>::max();
  x[257] = -0.0f;
  expect_same(x, 512);
}

TEST_P(Int8Kernels, QuantizingIsWithinHalfAStepAndFlagsWhatIsNotFinite) {
  const std::vector<float> x = testing::random_values(4 * 288, 3.0, random_);
  const Activations quantized = quantize(*kernels_, x, 288, 4);
  for (int64_t t = 0; t < 4; ++t) {
    const Row row = quantized.row(t);
    for (int64_t group = 0; group < 2; ++group) {
      double largest = 0.0;
      int32_t sums[16] = {};
      for (int64_t c = 256 * group; c < std::min<int64_t>(288, 256 * (group + 1)); ++c) {
        largest = std::max(largest, std::abs(double{x[static_cast<size_t>(t * 288 + c)]}));
        sums[c % 256 / 16] += row.q[static_cast<size_t>(c)];
      }
      const float scale = row.scales[static_cast<size_t>(group)];
      EXPECT_EQ(scale, static_cast<float>(largest) / 127.0f);
      for (int64_t i = 0; i < 16; ++i) EXPECT_EQ(row.minus_sums[static_cast<size_t>(16 * group + i)], -sums[i]);
      for (int64_t b = 0; b < 8; ++b) {
        EXPECT_EQ(row.minus_block_sums[static_cast<size_t>(8 * group + b)], -(sums[2 * b] + sums[2 * b + 1]));
      }
      for (int64_t c = 256 * group; c < 256 * (group + 1); ++c) {
        const int q = row.q[static_cast<size_t>(c)];
        if (c >= 288) {
          EXPECT_EQ(q, 0);
          continue;
        }
        // Half a step, and the roundings of 127 / m, of the product (both up to 127) and of the scale.
        const double bound = double{scale} * (0.5 + 127.0 * testing::gamma(3, testing::kUnitF32));
        EXPECT_NEAR(double{scale} * q, x[static_cast<size_t>(t * 288 + c)], bound);
      }
    }
  }
  for (const float bad : {INFINITY, -INFINITY, NAN, -NAN}) {
    for (const size_t at : {size_t{0}, size_t{15}, size_t{16}, size_t{255}}) {
      std::vector<float> values(512, 1.0f);
      values[256 + at] = bad;
      const Row flagged = quantize(*kernels_, values, 512, 1).row(0);
      EXPECT_EQ(flagged.scales[0], 1.0f / 127.0f);
      EXPECT_TRUE(std::isnan(flagged.scales[1]));
      for (size_t c = 256; c < 512; ++c) EXPECT_EQ(flagged.q[c], 0);
      for (size_t i = 16; i < 32; ++i) EXPECT_EQ(flagged.minus_sums[i], 0);
    }
  }
}

TEST_P(Int8Kernels, MultiplyEqualsTheDefinitionForEveryShape) {
  const std::vector<int64_t> batches = {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 16, 17, 32, 33, 50}, batch = {3};
  for (const DType type : kTypes) {
    for (const int64_t rows : {1, 7, 17, 31, 129, 150}) {
      for (const int64_t cols : {32, 96, 128, 160, 256, 288, 512, 768}) {
        if (cols % quant::block_elements(type) != 0) continue;
        const testing::RandomMatrix ordinary = testing::random_matrix(type, rows, cols, random_);
        const testing::RandomMatrix wild = testing::finite_blocks_matrix(type, rows, cols, random_);
        std::vector<float> x = testing::random_values(50 * cols, 1.0, random_);
        for (int64_t i = 0; i < cols; ++i) x[static_cast<size_t>(2 * cols + i)] = 0.0f;
        const std::vector<float> expected = multiply(scalar_, ordinary.view, x, 50);
        const std::vector<float> expected_wild = multiply(scalar_, wild.view, x, 50);
        for (const int64_t tokens : GetParam() == Isa::kScalar ? batch : batches) {
          SCOPED_TRACE(std::string(quant::dtype_name(type)) + " " + std::to_string(rows) + "x" + std::to_string(cols) +
                       ", " + std::to_string(tokens) + " tokens");
          const size_t count = static_cast<size_t>(tokens * ordinary.view.groups() * kLanes);
          ASSERT_TRUE(same_bits(multiply(*kernels_, ordinary.view, x, tokens), {expected.data(), count}));
          ASSERT_TRUE(same_bits(multiply(*kernels_, wild.view, x, tokens), {expected_wild.data(), count}));
        }
      }
    }
  }
}

TEST_P(Int8Kernels, MultiplyIsExactAtTheExtremes) {
  // All codes, scales and activations at one end: the largest sums that the integer arithmetic meets.
  for (const DType type : kTypes) {
    for (const auto& [code, sign] : {std::pair{0x80, 1.0f}, {0x7f, 1.0f}, {0x00, -1.0f}, {0xff, 1.0f}, {0xff, -1.0f}}) {
      const int64_t cols = 7168;
      const testing::RandomMatrix matrix = testing::matrix_of_blocks(
          type, 16, cols, [code = code] { return code; }, [] { return uint16_t{0x3c00}; });
      const std::vector<float> x(static_cast<size_t>(20 * cols), sign * 3.5f);
      EXPECT_EQ(quantize(scalar_, x, cols, 1).row(0).q[0], sign > 0.0f ? 127 : -127);
      const std::vector<float> expected = multiply(scalar_, matrix.view, x, 20);
      for (const int64_t tokens : {1, 6, 20}) {
        EXPECT_TRUE(same_bits(multiply(*kernels_, matrix.view, x, tokens),
                              {expected.data(), static_cast<size_t>(tokens * 16)}));
      }
    }
  }
}

TEST_P(Int8Kernels, NaNAndInfinityMakeTheirTokensNaNAndNoOthers) {
  for (const DType type : kTypes) {
    const testing::RandomMatrix matrix = testing::random_matrix(type, 40, 512, random_);
    std::vector<float> x = testing::random_values(7 * 512, 1.0, random_);
    const std::vector<float> clean = multiply(*kernels_, matrix.view, x, 7);
    x[512 + 100] = NAN;
    x[5 * 512 + 511] = -INFINITY;
    const std::vector<float> y = multiply(*kernels_, matrix.view, x, 7);
    for (size_t t = 0; t < 7; ++t) {
      for (size_t row = 0; row < 40; ++row) {
        if (t == 1 || t == 5) {
          EXPECT_TRUE(std::isnan(y[t * 48 + row]));
        } else {
          EXPECT_EQ(y[t * 48 + row], clean[t * 48 + row]);
        }
      }
    }
  }
}

TEST_P(Int8Kernels, EveryWeightIsWithinItsBound) {
  for (const DType type : kTypes) {
    const int64_t rows = 20, cols = quant::block_elements(type) == 32 ? 288 : 512;
    for (const testing::RandomMatrix& matrix : {testing::random_matrix(type, rows, cols, random_),
                                                testing::finite_blocks_matrix(type, rows, cols, random_)}) {
      const std::vector<float> w = matrix.dequantized();
      // One activation at a time, of value 1: scale 1/127, q 127.
      std::vector<float> x(static_cast<size_t>(cols * cols));
      for (int64_t c = 0; c < cols; ++c) x[static_cast<size_t>(c * cols + c)] = 1.0f;
      const std::vector<float> y = multiply(*kernels_, matrix.view, x, cols);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < cols; ++c) {
          const double weight = double{w[static_cast<size_t>(r * cols + c)]};
          const double error = weight_error(matrix.view, r, c / 256);
          // Rounded on the way: D, its inverse and the scales' products with it, the sum, 1/127 and two products.
          const double bound = error + testing::gamma(8, testing::kUnitF32) * (std::abs(weight) + 64.0 * error);
          EXPECT_NEAR(y[static_cast<size_t>(c * matrix.view.groups() * kLanes + r)], weight, bound)
              << quant::dtype_name(type) << ' ' << r << ' ' << c;
        }
      }
    }
  }
}

TEST_P(Int8Kernels, MultiplyIsWithinTheBoundOfTheExactProduct) {
  for (const DType type : kTypes) {
    for (const int64_t cols : {256, 7168}) {
      const int64_t rows = 20, tokens = 2, groups = cols / 256;
      const testing::RandomMatrix matrix = testing::random_matrix(type, rows, cols, random_);
      const std::vector<float> w = matrix.dequantized(), x = testing::random_values(tokens * cols, 1.0, random_);
      const Activations quantized = quantize(*kernels_, x, cols, tokens);
      const std::vector<float> y = multiply(*kernels_, matrix.view, x, tokens);
      for (int64_t t = 0; t < tokens; ++t) {
        const Row activations = quantized.row(t);
        for (int64_t r = 0; r < rows; ++r) {
          double sum = 0.0, rounding = 0.0, magnitude = 0.0;
          for (int64_t group = 0; group < groups; ++group) {
            const double scale = double{activations.scales[static_cast<size_t>(group)]};
            double sum_abs_w = 0.0;
            for (int64_t k = 256 * group; k < 256 * (group + 1); ++k) {
              const double weight = double{w[static_cast<size_t>(r * cols + k)]};
              sum += weight * double{x[static_cast<size_t>(t * cols + k)]};
              sum_abs_w += std::abs(weight);
            }
            // As the activations above: half a step, and what rounds on the way to it. Then every weight's own error.
            const double error = 256.0 * weight_error(matrix.view, r, group);
            rounding +=
                scale * (0.5 + 127.0 * testing::gamma(3, testing::kUnitF32)) * sum_abs_w + scale * 127.5 * error;
            magnitude += scale * 127.0 * (sum_abs_w + error);
          }
          const double bound = rounding + testing::scaled_dot_tolerance(groups, 3, magnitude);
          EXPECT_NEAR(y[static_cast<size_t>(t * matrix.view.groups() * kLanes + r)], sum, bound)
              << quant::dtype_name(type);
        }
      }
    }
  }
}

std::string int8_isa_name(const ::testing::TestParamInfo<Isa>& info) {
  return info.param == Isa::kAmx      ? "amx"
         : info.param == Isa::kAvx512 ? "avx512"
         : info.param == Isa::kAvx2   ? "avx2"
                                      : "scalar";
}

INSTANTIATE_TEST_SUITE_P(Isas, Int8Kernels, ::testing::Values(Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAmx),
                         int8_isa_name);

}  // namespace
}  // namespace moraine::cpu

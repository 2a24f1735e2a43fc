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
#include "quant/dequantize.h"
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

/// Rows of `cols` activations in int8, quantized by `kernels`.
struct Activations {
  std::vector<ActivationBlock> storage;
  std::vector<const ActivationBlock*> rows;
};

Activations quantize(const KernelTable& kernels, const std::vector<float>& x, int64_t cols) {
  Activations result;
  const int64_t tokens = std::ssize(x) / cols, blocks = cols / kActivationBlock;
  result.storage.resize(static_cast<size_t>(tokens * blocks));
  for (int64_t t = 0; t < tokens; ++t) {
    kernels.quantize_activations(x.data() + t * cols, cols, result.storage.data() + t * blocks);
    result.rows.push_back(result.storage.data() + t * blocks);
  }
  return result;
}

/// [tokens, rows rounded up to 16]
std::vector<float> multiply(const KernelTable& kernels, const quant::PackedView& matrix, const Activations& x,
                            int64_t tokens) {
  WorkerScratch scratch;
  const int64_t stride = matrix.groups() * kLanes;
  std::vector<float> out(static_cast<size_t>(tokens * stride), -1.0f);
  const Workers workers(kernels, 1);
  multiply_groups_int8(int8_kernel(workers, matrix), scratch, matrix, 0, matrix.groups(), x.rows.data(), tokens,
                       out.data(), stride);
  return out;
}

/// The largest |minimum| that columns 32·b … 32·b + 31 of a row have; 0 for formats without minima.
double minimum_of(const quant::PackedView& matrix, int64_t row, int64_t b) {
  const std::byte* group =
      matrix.data + static_cast<uint64_t>(row / 16) * quant::packed_group_bytes(matrix.type, matrix.cols);
  return quant::visit_block_format(
      matrix.type,
      [&]<typename Block>(Block block) {
        constexpr int64_t kSubs = Block::kElements / 32;
        quant::gather(group, matrix.cols, b / kSubs, row % 16, block);
        [[maybe_unused]] const auto sub = static_cast<int>(b % kSubs);
        if constexpr (requires { block.m; }) {
          return std::abs(double{quant::f32_from_f16(block.m)});
        } else if constexpr (std::is_same_v<Block, quant::BlockQ2_K>) {
          const int largest = std::max(block.scales[2 * sub] >> 4, block.scales[2 * sub + 1] >> 4);
          return std::abs(double{quant::f32_from_f16(block.dmin)} * largest);
        } else if constexpr (requires { block.dmin; }) {
          return std::abs(double{quant::f32_from_f16(block.dmin)} * quant::q4_k_scale_min(block.scales, sub).min);
        } else {
          return 0.0;
        }
      },
      [] { return 0.0; });
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

/// Compares every field of every block.
void expect_same_blocks(const Activations& actual, const Activations& expected) {
  ASSERT_EQ(actual.storage.size(), expected.storage.size());
  for (size_t b = 0; b < actual.storage.size(); ++b) {
    const ActivationBlock &a = actual.storage[b], &e = expected.storage[b];
    SCOPED_TRACE(b);
    for (int i = 0; i < 32; ++i) EXPECT_EQ(a.q[i], e.q[i]);
    EXPECT_TRUE(same_bits({&a.scale, 1}, {&e.scale, 1}));
    EXPECT_TRUE(same_bits({&a.scaled_sum, 1}, {&e.scaled_sum, 1}));
    EXPECT_EQ(a.start_q4_0, e.start_q4_0);
    EXPECT_EQ(a.start_q8_0, e.start_q8_0);
    EXPECT_TRUE(same_bits(a.half_scaled_sums, e.half_scaled_sums));
    for (int h = 0; h < 2; ++h) EXPECT_EQ(a.half_starts[h], e.half_starts[h]);
  }
}

TEST_P(Int8Kernels, QuantizingEqualsTheDefinition) {
  for (const double deviation : {1e-42, 1e-37, 3e-36, 1e-20, 1.0, 1e30}) {
    std::vector<float> x = testing::random_values(64 * 32, deviation, random_);
    for (size_t i = 32; i < 64; ++i) x[i] = 0.0f;
    expect_same_blocks(quantize(*kernels_, x, 32), quantize(scalar_, x, 32));
  }
  // Halves between two integers, the largest float, both zeros.
  std::vector<float> x(64);
  for (size_t i = 0; i < 32; ++i) x[i] = static_cast<float>(i) - 15.5f;
  x[0] = 127.0f;
  x[32] = -std::numeric_limits<float>::max();
  x[33] = -0.0f;
  expect_same_blocks(quantize(*kernels_, x, 64), quantize(scalar_, x, 64));
}

TEST_P(Int8Kernels, QuantizingIsWithinHalfAStepAndFlagsWhatIsNotFinite) {
  const std::vector<float> x = testing::random_values(32 * 32, 3.0, random_);
  const Activations quantized = quantize(*kernels_, x, 32);
  for (size_t b = 0; b < 32; ++b) {
    const ActivationBlock& block = quantized.storage[b];
    double largest = 0.0;
    int32_t sum = 0, halves[2] = {};
    for (size_t i = 0; i < 32; ++i) {
      largest = std::max(largest, std::abs(double{x[b * 32 + i]}));
      sum += block.q[i];
      halves[i / 16] += block.q[i];
    }
    for (int h = 0; h < 2; ++h) {
      EXPECT_EQ(block.half_starts[h], kSumBias - 32 * halves[h]);
      EXPECT_EQ(block.half_scaled_sums[h], block.scale * static_cast<float>(halves[h]));
    }
    EXPECT_EQ(block.scale, static_cast<float>(largest) / 127.0f);
    EXPECT_EQ(block.start_q8_0, kSumBias - 128 * sum);
    EXPECT_EQ(block.start_q4_0, kSumBias - 8 * sum);
    for (size_t i = 0; i < 32; ++i) {
      // Half a step, and the roundings of 127 / m, of the product (both up to 127) and of the scale.
      const double bound = double{block.scale} * (0.5 + 127.0 * testing::gamma(3, testing::kUnitF32));
      EXPECT_NEAR(double{block.scale} * block.q[i], x[b * 32 + i], bound);
    }
  }
  for (const float bad : {INFINITY, -INFINITY, NAN, -NAN}) {
    for (const size_t at : {size_t{0}, size_t{15}, size_t{16}, size_t{31}}) {
      std::vector<float> row(64, 1.0f);
      row[32 + at] = bad;
      const Activations flagged = quantize(*kernels_, row, 64);
      EXPECT_EQ(flagged.storage[0].scale, 1.0f / 127.0f);
      EXPECT_TRUE(std::isnan(flagged.storage[1].scale));
      EXPECT_TRUE(std::isnan(flagged.storage[1].scaled_sum));
      for (const int8_t q : flagged.storage[1].q) EXPECT_EQ(q, 0);
      EXPECT_EQ(flagged.storage[1].start_q8_0, kSumBias);
      for (const float sum : flagged.storage[1].half_scaled_sums) EXPECT_TRUE(std::isnan(sum));
      for (const int32_t start : flagged.storage[1].half_starts) EXPECT_EQ(start, kSumBias);
    }
  }
}

TEST_P(Int8Kernels, MultiplyEqualsTheDefinitionForEveryShape) {
  for (const DType type : kTypes) {
    for (const int64_t rows : {1, 7, 17, 31, 129, 150}) {
      for (const int64_t cols : {32, 96, 128, 160, 256, 288, 512, 768}) {
        if (cols % quant::block_elements(type) != 0) continue;
        const testing::RandomMatrix ordinary = testing::random_matrix(type, rows, cols, random_);
        const testing::RandomMatrix wild = testing::finite_blocks_matrix(type, rows, cols, random_);
        std::vector<float> x = testing::random_values(33 * cols, 1.0, random_);
        for (int64_t i = 0; i < cols; ++i) x[static_cast<size_t>(2 * cols + i)] = 0.0f;
        const Activations quantized = quantize(scalar_, x, cols);
        const std::vector<float> expected = multiply(scalar_, ordinary.view, quantized, 33);
        const std::vector<float> expected_wild = multiply(scalar_, wild.view, quantized, 33);
        for (const int64_t tokens : {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 33}) {
          SCOPED_TRACE(std::string(quant::dtype_name(type)) + " " + std::to_string(rows) + "x" + std::to_string(cols) +
                       ", " + std::to_string(tokens) + " tokens");
          const size_t count = static_cast<size_t>(tokens * ordinary.view.groups() * kLanes);
          ASSERT_TRUE(same_bits(multiply(*kernels_, ordinary.view, quantized, tokens), {expected.data(), count}));
          ASSERT_TRUE(same_bits(multiply(*kernels_, wild.view, quantized, tokens), {expected_wild.data(), count}));
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
      const std::vector<float> x(static_cast<size_t>(6 * cols), sign * 3.5f);
      const Activations quantized = quantize(scalar_, x, cols);
      EXPECT_EQ(quantized.storage[0].q[0], sign > 0.0f ? 127 : -127);
      const std::vector<float> expected = multiply(scalar_, matrix.view, quantized, 6);
      for (const int64_t tokens : {1, 6}) {
        EXPECT_TRUE(same_bits(multiply(*kernels_, matrix.view, quantized, tokens),
                              {expected.data(), static_cast<size_t>(tokens * 16)}));
      }
    }
  }
}

TEST_P(Int8Kernels, NaNAndInfinityMakeTheirTokensNaNAndNoOthers) {
  for (const DType type : kTypes) {
    const testing::RandomMatrix matrix = testing::random_matrix(type, 40, 512, random_);
    std::vector<float> x = testing::random_values(7 * 512, 1.0, random_);
    const std::vector<float> clean = multiply(*kernels_, matrix.view, quantize(*kernels_, x, 512), 7);
    x[512 + 100] = NAN;
    x[5 * 512 + 511] = -INFINITY;
    const std::vector<float> y = multiply(*kernels_, matrix.view, quantize(*kernels_, x, 512), 7);
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

TEST_P(Int8Kernels, MultiplyIsWithinTheBoundOfTheExactProduct) {
  for (const DType type : kTypes) {
    for (const int64_t cols : {256, 7168}) {
      const int64_t rows = 20, tokens = 2, blocks = cols / 32;
      const testing::RandomMatrix matrix = testing::random_matrix(type, rows, cols, random_);
      const std::vector<float> w = matrix.dequantized(), x = testing::random_values(tokens * cols, 1.0, random_);
      const Activations quantized = quantize(*kernels_, x, cols);
      const std::vector<float> y = multiply(*kernels_, matrix.view, quantized, tokens);
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t r = 0; r < rows; ++r) {
          double sum = 0.0, rounding = 0.0, magnitude = 0.0;
          for (int64_t b = 0; b < blocks; ++b) {
            const double scale = double{quantized.rows[static_cast<size_t>(t)][b].scale};
            const double minimum = minimum_of(matrix.view, r, b);
            double sum_abs_w = 0.0;
            for (int64_t k = 32 * b; k < 32 * (b + 1); ++k) {
              const double weight = double{w[static_cast<size_t>(r * cols + k)]};
              sum += weight * double{x[static_cast<size_t>(t * cols + k)]};
              sum_abs_w += std::abs(weight);
            }
            // As the activations above: half a step, and what rounds on the way to it.
            rounding += scale * (0.5 + 127.0 * testing::gamma(3, testing::kUnitF32)) * sum_abs_w;
            // Of both terms of the chain: Σ|d·q| ≤ Σ(|w| + |minimum|), and the minimum times Σ q.
            magnitude += scale * 127.0 * (sum_abs_w + 2.0 * 32.0 * minimum);
          }
          // Up to 3 chained terms per block, each the rounded product of a rounded factor.
          const double bound = rounding + testing::scaled_dot_tolerance(3 * blocks, 2, magnitude);
          EXPECT_NEAR(y[static_cast<size_t>(t * matrix.view.groups() * kLanes + r)], sum, bound);
        }
      }
    }
  }
}

std::string int8_isa_name(const ::testing::TestParamInfo<Isa>& info) {
  return info.param == Isa::kAvx512 ? "avx512" : info.param == Isa::kAvx2 ? "avx2" : "scalar";
}

INSTANTIATE_TEST_SUITE_P(Isas, Int8Kernels, ::testing::Values(Isa::kScalar, Isa::kAvx2, Isa::kAvx512), int8_isa_name);

}  // namespace
}  // namespace moraine::cpu

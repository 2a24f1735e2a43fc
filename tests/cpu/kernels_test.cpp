#include "cpu/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "cpu/isa.h"
#include "cpu/matmul.h"
#include "support/random_matrix.h"
#include "support/same_bits.h"
#include "support/tolerance.h"

// Every instruction set against the scalar definition, bit by bit, and the definition against quant/ and f64.
namespace moraine::cpu {
namespace {

using quant::DType;
using testing::same_bits;

constexpr DType kTypes[] = {DType::kF32,    DType::kF16,     DType::kBF16,  DType::kF8E4M3,  DType::kQ8_0,
                            DType::kQ4_0,   DType::kQ4_1,    DType::kQ5_0,  DType::kQ5_1,    DType::kQ2_K,
                            DType::kQ3_K,   DType::kQ4_K,    DType::kQ5_K,  DType::kQ6_K,    DType::kIQ4_NL,
                            DType::kIQ4_XS, DType::kIQ3_XXS, DType::kIQ3_S, DType::kIQ2_XXS, DType::kIQ2_XS,
                            DType::kIQ2_S,  DType::kIQ1_S,   DType::kIQ1_M};

class Kernels : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!isa_available(GetParam())) GTEST_SKIP() << "this machine lacks the instruction set";
    kernels_ = &select_kernels(GetParam());
  }

  /// Normally distributed numbers.
  std::vector<float> values(int64_t count, double deviation = 2.0) {
    return testing::random_values(count, deviation, random_);
  }

  const KernelTable* kernels_ = nullptr;
  const KernelTable& scalar_ = scalar_kernels();
  testing::RandomValues random_{7};
};

std::string isa_test_name(const ::testing::TestParamInfo<Isa>& info) {
  return info.param == Isa::kAvx512 ? "avx512" : info.param == Isa::kAvx2 ? "avx2" : "scalar";
}

/// Columns of all groups of `matrix`, decoded in pieces of `step` columns, as [rows, cols] without padding.
std::vector<float> decode(const KernelTable& kernels, const quant::PackedView& matrix, int64_t step) {
  std::vector<float> values(static_cast<size_t>(matrix.rows * matrix.cols));
  WorkerScratch scratch;
  for (int64_t col = 0; col < matrix.cols; col += step) {
    const int64_t count = std::min(step, matrix.cols - col);
    const Panel panel = decode_panel(kernels, scratch, matrix, 0, matrix.groups(), col, count);
    for (int64_t row = 0; row < matrix.rows; ++row) {
      for (int64_t k = 0; k < count; ++k) {
        values[static_cast<size_t>(row * matrix.cols + col + k)] =
            panel.data[row / 16 * panel.group_stride + k * panel.k_stride + row % 16];
      }
    }
  }
  return values;
}

TEST_P(Kernels, DecodeGivesTheReferenceValues) {
  for (const DType type : kTypes) {
    for (const int64_t rows : {1, 7, 17, 31, 129}) {
      for (const int64_t cols : {1, 7, 31, 32, 96, 128, 160, 256, 512}) {
        if (cols % quant::block_elements(type) != 0) continue;
        SCOPED_TRACE(std::string(quant::dtype_name(type)) + " " + std::to_string(rows) + "x" + std::to_string(cols));
        const testing::RandomMatrix ordinary = testing::random_matrix(type, rows, cols, random_);
        EXPECT_TRUE(same_bits(decode(*kernels_, ordinary.view, 64), ordinary.dequantized()));
        const testing::RandomMatrix wild = testing::random_bytes_matrix(type, rows, cols, random_);
        EXPECT_TRUE(same_bits(decode(*kernels_, wild.view, 32), wild.dequantized()));
        EXPECT_TRUE(same_bits(decode(*kernels_, wild.view, 256), wild.dequantized()));
      }
    }
  }
}

TEST_P(Kernels, DecodeTakesFp8ScalesOfEverySize) {
  for (const float scale : {0x1p-149f, 0x1.8p-140f, 0x1.fffffep-127f, 0x1.abcdeep-20f, 1.0f, -3.0f, 0x1.fffffep+118f,
                            0x1.8p+119f, 0x1.fffffep+127f, std::numeric_limits<float>::infinity()}) {
    SCOPED_TRACE(scale);
    testing::RandomMatrix matrix = testing::make_matrix(DType::kF8E4M3, 16, 256);
    for (size_t i = 0; i < 16 * 256; ++i) matrix.storage.span()[i] = static_cast<std::byte>(i % 256);
    auto* scales = reinterpret_cast<float*>(matrix.storage.data() + quant::packed_fp8_scales_offset(16, 256));
    scales[0] = scale;
    scales[1] = 2.0f * scale;
    EXPECT_TRUE(same_bits(decode(*kernels_, matrix.view, 256), matrix.dequantized()));
  }
}

TEST_P(Kernels, MultiplyIsOneChainPerElement) {
  for (const int64_t groups : {1, 2, 3, 7, 8, 9}) {
    for (const int64_t k_count : {1, 7, 31, 64}) {
      const std::vector<float> panel = values(groups * k_count * 16);
      for (const int64_t tokens : {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 33}) {
        SCOPED_TRACE(std::to_string(groups) + " groups " + std::to_string(k_count) + " " + std::to_string(tokens));
        const std::vector<float> x = values(tokens * (k_count + 3));
        const int64_t stride = groups * 16 + 5;
        const std::vector<float> start = values(tokens * stride);
        std::vector<float> actual = start, expected = start;
        const Panel view{panel.data(), k_count * 16, 16, groups};
        kernels_->multiply(view, x.data(), k_count + 3, tokens, k_count, actual.data(), stride);
        for (int64_t t = 0; t < tokens; ++t) {
          for (int64_t row = 0; row < groups * 16; ++row) {
            float& sum = expected[static_cast<size_t>(t * stride + row)];
            for (int64_t k = 0; k < k_count; ++k) {
              sum = std::fma(panel[static_cast<size_t>((row / 16 * k_count + k) * 16 + row % 16)],
                             x[static_cast<size_t>(t * (k_count + 3) + k)], sum);
            }
          }
        }
        ASSERT_TRUE(same_bits(actual, expected));
      }
    }
  }
}

TEST_P(Kernels, MultiplyTakesOverlappingColumnsOfRows) {
  // Values of attention: row-major [k, 40], groups at columns 3 … 34.
  const std::vector<float> rows = values(9 * 40);
  const std::vector<float> x = values(5 * 9);
  const Panel view{rows.data() + 3, 16, 40, 2};
  std::vector<float> actual(5 * 32), expected(5 * 32);
  kernels_->multiply(view, x.data(), 9, 5, 9, actual.data(), 32);
  scalar_.multiply(view, x.data(), 9, 5, 9, expected.data(), 32);
  EXPECT_TRUE(same_bits(actual, expected));
}

TEST_P(Kernels, CombineRowsEqualsTheDefinition) {
  for (const int64_t groups : {1, 2, 8, 9}) {
    for (const int64_t k_count : {1, 3, 4, 7, 15, 16, 17, 31, 64}) {
      const std::vector<float> panel = values(groups * k_count * 16);
      const std::vector<float> weights = values(3 * groups * 16);
      std::vector<float> actual(static_cast<size_t>(3 * k_count)), expected(actual.size());
      const Panel view{panel.data(), k_count * 16, 16, groups};
      kernels_->combine_rows(view, weights.data(), groups * 16, 3, k_count, actual.data(), k_count);
      scalar_.combine_rows(view, weights.data(), groups * 16, 3, k_count, expected.data(), k_count);
      ASSERT_TRUE(same_bits(actual, expected)) << groups << " groups, " << k_count << " columns";
      for (int64_t t = 0; t < 3; ++t) {
        for (int64_t k = 0; k < k_count; ++k) {
          double sum = 0.0, sum_abs = 0.0;
          for (int64_t row = 0; row < groups * 16; ++row) {
            const double product = double{weights[static_cast<size_t>(t * groups * 16 + row)]} *
                                   double{panel[static_cast<size_t>((row / 16 * k_count + k) * 16 + row % 16)]};
            sum += product;
            sum_abs += std::abs(product);
          }
          EXPECT_NEAR(actual[static_cast<size_t>(t * k_count + k)], sum, testing::dot_tolerance(groups * 16, sum_abs));
        }
      }
    }
  }
}

TEST_P(Kernels, RmsNormEqualsTheDefinition) {
  for (const int64_t n : {1, 7, 15, 16, 17, 31, 64, 96, 256, 7168}) {
    for (const double deviation : {1e-20, 1e-3, 1.0, 1e15}) {
      const std::vector<float> x = values(n, deviation), w = values(n, 1.0);
      std::vector<float> actual(x.size()), expected(x.size());
      kernels_->rms_norm(x.data(), w.data(), n, 1e-6f, actual.data());
      scalar_.rms_norm(x.data(), w.data(), n, 1e-6f, expected.data());
      EXPECT_TRUE(same_bits(actual, expected)) << n;
      double sum = 0.0;
      for (const float value : x) sum += double{value} * double{value};
      const double r = 1.0 / std::sqrt(sum / static_cast<double>(n) + double{1e-6f});
      for (size_t i = 0; i < x.size(); ++i) {
        // Half the relative error of the sum under the root, then sqrt, quotient and two products. x² may underflow.
        const double exact = double{x[i]} * r * double{w[i]};
        EXPECT_NEAR(actual[i], exact, testing::gamma(n / 16 + 12, testing::kUnitF32) * std::abs(exact) + 0x1p-149);
      }
      std::vector<float> in_place = x;
      kernels_->rms_norm(in_place.data(), w.data(), n, 1e-6f, in_place.data());
      EXPECT_TRUE(same_bits(in_place, expected));
    }
  }
}

TEST_P(Kernels, SiluMultiplyEqualsTheDefinition) {
  std::vector<float> gate = values(500, 3.0);
  for (const float edge : {0.0f, -0.0f, 1e-30f, 87.0f, 88.73f, 89.0f, 104.0f, 105.0f, 1e30f, INFINITY, NAN}) {
    gate.push_back(edge);
    gate.push_back(-edge);
  }
  const std::vector<float> up = values(std::ssize(gate), 1.0);
  for (const size_t n : {size_t{1}, size_t{7}, size_t{31}, gate.size()}) {
    std::vector<float> actual(n), expected(n);
    kernels_->silu_multiply(gate.data() + gate.size() - n, up.data(), static_cast<int64_t>(n), actual.data());
    scalar_.silu_multiply(gate.data() + gate.size() - n, up.data(), static_cast<int64_t>(n), expected.data());
    EXPECT_TRUE(same_bits(actual, expected)) << n;
  }
}

TEST_P(Kernels, SiluIsAccurate) {
  for (float z = -80.0f; z < 80.0f; z += 0.0371f) {
    const float one = 1.0f;
    float actual = 0.0f;
    kernels_->silu_multiply(&z, &one, 1, &actual);
    const double exact = double{z} / (1.0 + std::exp(-double{z}));
    // exp: argument reduction and polynomial, under 3 units; then sum, quotient, product.
    ASSERT_NEAR(actual, exact, testing::gamma(6, testing::kUnitF32) * std::abs(exact)) << z;
  }
}

TEST_P(Kernels, SoftmaxStepEqualsTheDefinitionAndTheTruth) {
  for (const int64_t n : {1, 7, 15, 16, 17, 31, 64}) {
    SoftmaxState actual_state, expected_state;
    std::vector<double> all;
    std::vector<float> kept;
    for (int block = 0; block < 4; ++block) {
      std::vector<float> scores = values(n, 20.0);
      for (const float score : scores) all.push_back(double{score * 0.3f});
      std::vector<float> expected = scores;
      const float actual_rescale = kernels_->softmax_step(scores.data(), n, 0.3f, actual_state);
      const float expected_rescale = scalar_.softmax_step(expected.data(), n, 0.3f, expected_state);
      EXPECT_TRUE(same_bits(scores, expected));
      EXPECT_TRUE(same_bits({&actual_rescale, 1}, {&expected_rescale, 1}));
      EXPECT_TRUE(same_bits({&actual_state.sum, 1}, {&expected_state.sum, 1}));
      EXPECT_EQ(actual_state.max, expected_state.max);
      for (float& p : kept) p *= actual_rescale;
      kept.insert(kept.end(), scores.begin(), scores.end());
    }
    const double max = *std::max_element(all.begin(), all.end());
    double sum = 0.0;
    for (const double score : all) sum += std::exp(score - max);
    EXPECT_EQ(actual_state.max, static_cast<float>(max));
    EXPECT_NEAR(actual_state.sum, sum, testing::gamma(4 * n + 20, testing::kUnitF32) * sum);
    for (size_t i = 0; i < all.size(); ++i) {
      const double exact = std::exp(all[i] - max);
      // A score's own rounding of score − max (both up to ~100) is amplified by exp; three rescalings follow.
      const double relative = testing::kUnitF32 * (4.0 * std::abs(all[i] - max) + 16.0);
      EXPECT_NEAR(kept[i], exact, relative * exact + 0x1p-120);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, Kernels, ::testing::Values(Isa::kScalar, Isa::kAvx2, Isa::kAvx512), isa_test_name);

}  // namespace
}  // namespace moraine::cpu

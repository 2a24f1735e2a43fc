#include "cpu/matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "cpu/isa.h"
#include "support/random_matrix.h"
#include "support/same_bits.h"
#include "support/tolerance.h"

namespace moraine::cpu {
namespace {

using quant::DType;
using testing::random_matrix;
using testing::random_values;
using testing::same_bits;

constexpr DType kTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kF8E4M3, DType::kQ8_0,
                            DType::kQ4_0, DType::kQ4_K, DType::kQ6_K, DType::kQ2_K,   DType::kIQ2_XXS};

constexpr DType kInt8Types[] = {DType::kQ8_0, DType::kQ4_0, DType::kQ4_K, DType::kQ6_K, DType::kQ2_K};

/// The definition with f32 activations: a chain of f32 fused multiply-adds over the columns of the reference weights.
std::vector<float> chain(const testing::RandomMatrix& matrix, const std::vector<float>& x, int64_t tokens) {
  const std::vector<float> w = matrix.dequantized();
  const int64_t rows = matrix.view.rows, cols = matrix.view.cols;
  std::vector<float> y(static_cast<size_t>(tokens * rows));
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t r = 0; r < rows; ++r) {
      float sum = 0.0f;
      for (int64_t k = 0; k < cols; ++k) {
        sum = std::fma(w[static_cast<size_t>(r * cols + k)], x[static_cast<size_t>(t * cols + k)], sum);
      }
      y[static_cast<size_t>(t * rows + r)] = sum;
    }
  }
  return y;
}

std::vector<float> product(Workers& workers, const quant::PackedView& matrix, const std::vector<float>& x,
                           int64_t tokens) {
  std::vector<float> y(static_cast<size_t>(tokens * matrix.rows));
  matmul(workers, matrix, {.data = x.data(), .stride = matrix.cols}, tokens, y.data(), matrix.rows);
  return y;
}

TEST(Matmul, IsTheChainOfTheReferenceWeightsForEveryTypeAndShape) {
  testing::RandomValues random(1);
  std::vector<Isa> isas;
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (isa_available(isa)) isas.push_back(isa);
  }
  for (const DType type : kTypes) {
    for (const int64_t rows : {1, 7, 17, 31, 129}) {
      for (const int64_t cols : {1, 7, 31, 32, 96, 128, 160, 512}) {
        if (cols % quant::block_elements(type) != 0) continue;
        const testing::RandomMatrix matrix = random_matrix(type, rows, cols, random);
        const std::vector<float> x = random_values(33 * cols, 1.0, random);
        const std::vector<float> expected = chain(matrix, x, 33);
        for (const Isa isa : isas) {
          Workers workers(select_kernels(isa), 1, /*precise=*/true);
          for (const int64_t tokens : {1, 2, 3, 4, 5, 6, 7, 8, 9, 33}) {
            const std::vector<float> y = product(workers, matrix.view, x, tokens);
            ASSERT_TRUE(same_bits(y, {expected.data(), y.size()}))
                << quant::dtype_name(type) << " " << rows << "x" << cols << ", " << tokens << " tokens, "
                << workers.kernels().name;
          }
        }
      }
    }
  }
}

TEST(Matmul, IsTheSameForOneAndTwoThreadsAtFullWidth) {
  testing::RandomValues random(2);
  Workers one(select_kernels(), 1, /*precise=*/true), two(select_kernels(), 2, /*precise=*/true);
  for (const DType type : kTypes) {
    const testing::RandomMatrix matrix = random_matrix(type, 150, 7168, random);
    const std::vector<float> x = random_values(13 * 7168, 1.0, random);
    const std::vector<float> expected = chain(matrix, x, 13);
    for (const int64_t tokens : {1, 4, 5, 13}) {
      const std::vector<float> y = product(one, matrix.view, x, tokens);
      EXPECT_TRUE(same_bits(y, {expected.data(), y.size()})) << quant::dtype_name(type);
      EXPECT_TRUE(same_bits(product(two, matrix.view, x, tokens), y)) << quant::dtype_name(type);
    }
  }
}

TEST(Matmul, IsWithinTheBoundOfTheExactProduct) {
  testing::RandomValues random(3);
  Workers workers(select_kernels(), 1, /*precise=*/true);
  for (const DType type : kTypes) {
    const int64_t rows = 40, cols = 512, tokens = 3;
    const testing::RandomMatrix matrix = random_matrix(type, rows, cols, random);
    const std::vector<float> w = matrix.dequantized(), x = random_values(tokens * cols, 1.0, random);
    const std::vector<float> y = product(workers, matrix.view, x, tokens);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t r = 0; r < rows; ++r) {
        double sum = 0.0, sum_abs = 0.0;
        for (int64_t k = 0; k < cols; ++k) {
          const double term =
              double{w[static_cast<size_t>(r * cols + k)]} * double{x[static_cast<size_t>(t * cols + k)]};
          sum += term;
          sum_abs += std::abs(term);
        }
        EXPECT_NEAR(y[static_cast<size_t>(t * rows + r)], sum, testing::dot_tolerance(cols, sum_abs));
      }
    }
  }
}

TEST(Matmul, TakesRowsByIndexAndWritesOnlyItsOwnColumns) {
  testing::RandomValues random(4);
  Workers workers(select_kernels(), 2);
  const testing::RandomMatrix matrix = random_matrix(DType::kBF16, 19, 31, random);
  const std::vector<float> x = random_values(6 * 40, 1.0, random);
  const std::vector<int32_t> index = {5, 0, 5};
  std::vector<float> y(3 * 25, -1.0f);
  matmul(workers, matrix.view, {.data = x.data(), .stride = 40, .index = index.data()}, 3, y.data(), 25);
  for (size_t t = 0; t < 3; ++t) {
    const std::vector<float> row(x.begin() + index[t] * 40, x.begin() + index[t] * 40 + 31);
    EXPECT_TRUE(same_bits({y.data() + t * 25, 19}, chain(matrix, row, 1)));
    for (size_t i = 19; i < 25; ++i) EXPECT_EQ(y[t * 25 + i], -1.0f);
  }
}

TEST(Matmul, TakesInt8ActivationsForBlockFormatsUnlessPrecise) {
  testing::RandomValues random(5);
  const KernelTable& kernels = select_kernels();
  const Workers fast(kernels, 1), precise(kernels, 1, /*precise=*/true);
  for (const DType type : kTypes) {
    const testing::RandomMatrix matrix = random_matrix(type, 16, 256, random);
    EXPECT_EQ(int8_format(precise, matrix.view), nullptr);
    EXPECT_EQ(int8_format(fast, matrix.view), type == DType::kQ8_0      ? &kernels.int8_q8_0
                                              : type == DType::kQ4_0    ? &kernels.int8_q4_0
                                              : type == DType::kQ4_K    ? &kernels.int8_q4_k
                                              : type == DType::kQ6_K    ? &kernels.int8_q6_k
                                              : type == DType::kQ2_K    ? &kernels.int8_q2_k
                                              : type == DType::kIQ2_XXS ? &kernels.int8_iq2_xxs
                                                                        : nullptr);
  }
}

TEST(Matmul, WithInt8ActivationsIsOneDefinitionForAnyIsaThreadsAndBatch) {
  testing::RandomValues random(6);
  Workers reference(select_kernels(Isa::kScalar), 1);
  for (const DType type : kInt8Types) {
    const int64_t rows = 150, cols = 7168, tokens = 37;
    const testing::RandomMatrix matrix = random_matrix(type, rows, cols, random);
    const std::vector<float> x = random_values(tokens * cols, 1.0, random);
    std::vector<float> expected;  // every token alone
    for (int64_t t = 0; t < tokens; ++t) {
      const std::vector<float> y =
          product(reference, matrix.view, {x.begin() + t * cols, x.begin() + (t + 1) * cols}, 1);
      expected.insert(expected.end(), y.begin(), y.end());
    }
    for (const Isa isa : {Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
      if (!isa_available(isa)) continue;
      for (const int threads : {1, 2, 3}) {
        Workers workers(select_kernels(isa), threads);
        for (const int64_t count : {1, 2, 5, 7, 13, 37}) {
          const std::vector<float> y = product(workers, matrix.view, x, count);
          EXPECT_TRUE(same_bits(y, {expected.data(), y.size()})) << quant::dtype_name(type) << ", " << count;
        }
      }
    }
  }
}

TEST(Matmul, WithInt8ActivationsTakesMoreTokensThanAreMultipliedAtATime) {
  testing::RandomValues random(8);
  Workers workers(select_kernels(), 2);
  const testing::RandomMatrix matrix = random_matrix(DType::kQ8_0, 40, 64, random);
  const int64_t tokens = 2 * 512 + 3;
  const std::vector<float> x = random_values(tokens * 64, 1.0, random);
  const std::vector<float> y = product(workers, matrix.view, x, tokens);
  for (const int64_t t : {int64_t{0}, int64_t{511}, int64_t{512}, int64_t{1023}, tokens - 1}) {
    const std::vector<float> row(x.begin() + t * 64, x.begin() + (t + 1) * 64);
    EXPECT_TRUE(same_bits({y.data() + t * 40, 40}, product(workers, matrix.view, row, 1))) << t;
  }
}

TEST(Matmul, WithInt8ActivationsTakesRowsByIndexMoreThanOnce) {
  testing::RandomValues random(7);
  Workers workers(select_kernels(), 2);
  const testing::RandomMatrix matrix = random_matrix(DType::kQ4_0, 19, 64, random);
  const std::vector<float> x = random_values(30 * 80, 1.0, random);
  std::vector<int32_t> index = {29, 0, 29, 3};
  for (int32_t i = 0; i < 30; ++i) index.push_back(i);
  std::vector<float> y(index.size() * 19);
  matmul(workers, matrix.view, {.data = x.data(), .stride = 80, .index = index.data()}, std::ssize(index), y.data(),
         19);
  for (size_t t = 0; t < index.size(); ++t) {
    const std::vector<float> row(x.begin() + index[t] * 80, x.begin() + index[t] * 80 + 64);
    EXPECT_TRUE(same_bits({y.data() + t * 19, 19}, product(workers, matrix.view, row, 1)));
  }
}

TEST(Matmul, TasksCoverTheThreadsAndStayInCache) {
  const Workers one(select_kernels(), 1), two(select_kernels(), 2);
  const int64_t few = select_kernels().int8_stream_rows, many = few + 1;
  EXPECT_EQ(groups_per_task(one, 1000, many), kPanelGroups);
  EXPECT_EQ(groups_per_task(two, 1000, many), kPanelGroups);
  EXPECT_EQ(groups_per_task(two, 1000, few), kStreamGroups);
  EXPECT_EQ(groups_per_task(two, 16, few), 2);
  EXPECT_EQ(groups_per_task(two, 1, few), 1);
}

}  // namespace
}  // namespace moraine::cpu

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "cpu/isa.h"
#include "cpu/kernels.h"
#include "support/random_matrix.h"
#include "support/same_bits.h"
#include "support/tolerance.h"

// The product with the transposed rows of a block-format matrix: every instruction set against the definition, bit by
// bit, and the definition against f64.
namespace moraine::cpu {
namespace {

using quant::DType;
using testing::same_bits;

AbsorbKernel kernel(const KernelTable& kernels, DType type) {
  return type == DType::kQ8_0   ? kernels.bf16.absorb_q8_0
         : type == DType::kQ4_0 ? kernels.bf16.absorb_q4_0
                                : kernels.bf16.absorb_q4_k;
}

std::vector<float> absorb(const KernelTable& kernels, const quant::PackedView& matrix, const std::vector<float>& x,
                          const std::byte* next) {
  const PackedGroups groups{.data = matrix.data,
                            .group_bytes = static_cast<int64_t>(quant::packed_group_bytes(matrix.type, matrix.cols)),
                            .group_count = matrix.groups(),
                            .cols = matrix.cols,
                            .next = next};
  quant::AlignedBuffer scratch(kAbsorbScratchBytes);
  std::vector<float> out(static_cast<size_t>(matrix.cols));
  kernel(kernels, matrix.type)(groups, x.data(), scratch.data(), out.data());
  return out;
}

class AbsorbKernels : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!isa_available(GetParam())) GTEST_SKIP() << "this machine lacks the instruction set";
    kernels_ = &select_kernels(GetParam());
  }
  const KernelTable* kernels_ = nullptr;
  testing::RandomValues random_{21};
};

TEST_P(AbsorbKernels, IsTheDefinedSumAndNearTheExactOne) {
  for (const DType type : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_K}) {
    for (const int64_t rows : {16, 48, 128, 1024}) {
      for (const int64_t cols : {32, 96, 256, 288, 512, 1280}) {
        if (cols % quant::block_elements(type) != 0) continue;
        SCOPED_TRACE(std::string(quant::dtype_name(type)) + " " + std::to_string(rows) + "x" + std::to_string(cols));
        const testing::RandomMatrix matrix = testing::random_matrix(type, rows, cols, random_);
        std::vector<float> x = testing::random_values(rows, 1.5, random_);
        for (size_t i = 0; i < x.size(); i += 5) x[i] = 0.0f;
        const std::vector<float> actual = absorb(*kernels_, matrix.view, x, rows == 48 ? matrix.view.data : nullptr);
        ASSERT_TRUE(same_bits(actual, absorb(scalar_kernels(), matrix.view, x, nullptr)));
        const std::vector<float> w = matrix.dequantized();
        double largest_x = 0.0, largest_w = 0.0;
        for (const float value : x) largest_x = std::max(largest_x, std::abs(double{value}));
        for (const float value : w) largest_w = std::max(largest_w, std::abs(double{value}));
        for (int64_t k = 0; k < cols; ++k) {
          double exact = 0.0, magnitude = 0.0, sum_abs_x = 0.0;
          for (int64_t i = 0; i < rows; ++i) {
            const double weight = double{w[static_cast<size_t>(i * cols + k)]};
            exact += double{x[static_cast<size_t>(i)]} * weight;
            magnitude += std::abs(double{x[static_cast<size_t>(i)]} * weight);
            sum_abs_x += std::abs(double{x[static_cast<size_t>(i)]});
          }
          // A code is at most 128 (Q4: 15) and y at most D · max|x|, with 128 · D (15 · D) at most twice the largest
          // weight's size: half a step of y times the codes of all rows. Minima are at most twice the largest weight.
          const double steps = static_cast<double>(rows) * largest_x * 4.0 * largest_w / double{kAbsorbSteps};
          const double roundings =
              testing::gamma(rows + 8, testing::kUnitF32) * (magnitude + 2.0 * largest_w * sum_abs_x);
          ASSERT_NEAR(actual[static_cast<size_t>(k)], exact, steps + roundings) << k;
        }
      }
    }
  }
}

TEST_P(AbsorbKernels, CodesOfEverySizeGiveTheDefinedSum) {
  for (const DType type : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_K}) {
    testing::RandomMatrix matrix = testing::random_bytes_matrix(type, 64, 256, random_);
    const std::vector<float> x = testing::random_values(64, 1.0, random_);
    EXPECT_TRUE(
        same_bits(absorb(*kernels_, matrix.view, x, nullptr), absorb(scalar_kernels(), matrix.view, x, nullptr)))
        << quant::dtype_name(type);
  }
}

TEST_P(AbsorbKernels, ZerosTinyNumbersAndWhatIsNoNumber) {
  const testing::RandomMatrix matrix = testing::random_matrix(DType::kQ8_0, 32, 64, random_);
  for (const float value : {0.0f, 0x1p-115f, 0x1p-140f, 0x1p+100f, std::numeric_limits<float>::infinity(),
                            std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> x(32);
    x[17] = value;
    const std::vector<float> out = absorb(*kernels_, matrix.view, x, nullptr);
    ASSERT_TRUE(same_bits(out, absorb(scalar_kernels(), matrix.view, x, nullptr))) << value;
    EXPECT_EQ(std::isnan(out[0]), !std::isfinite(value)) << value;
    EXPECT_EQ(out[0] == 0.0f, std::isfinite(value) && value < 0x1p-110f) << value;
  }
}

std::string absorb_isa_name(const ::testing::TestParamInfo<Isa>& info) {
  constexpr const char* kNames[] = {"scalar", "avx2", "avx512", "amx"};
  return kNames[static_cast<size_t>(info.param)];
}

INSTANTIATE_TEST_SUITE_P(Isas, AbsorbKernels, ::testing::Values(Isa::kScalar, Isa::kAvx2, Isa::kAvx512),
                         absorb_isa_name);

}  // namespace
}  // namespace moraine::cpu

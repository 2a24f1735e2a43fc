#include "quant/block_check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "quant/dequantize.h"

namespace moraine::quant {
namespace {

class BlockCheck : public ::testing::TestWithParam<DType> {};

TEST_P(BlockCheck, FindsTheBlockThatHoldsNoNumbers) {
  const DType type = GetParam();
  const auto block_bytes = static_cast<size_t>(block_bits(type) / 8);
  std::vector<std::byte> block(block_bytes);
  std::vector<float> values(static_cast<size_t>(block_elements(type)));
  std::mt19937 random(7);
  int bad_count = 0;
  for (int round = 0; round < 3000; ++round) {
    for (std::byte& byte : block) byte = static_cast<std::byte>(random() & 255);
    dequantize_row(type, block, values);
    const bool all_good = std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
    EXPECT_EQ(first_bad_block(type, block), all_good ? -1 : 0) << dtype_name(type) << " round " << round;
    bad_count += all_good ? 0 : 1;
  }
  EXPECT_GT(bad_count, 30);  // one scale in 32 has an exponent of all ones
  EXPECT_LT(bad_count, 500);

  std::vector<std::byte> three(3 * block_bytes);  // zeros are numbers
  EXPECT_EQ(first_bad_block(type, three), -1);
  std::fill(three.begin() + static_cast<std::ptrdiff_t>(2 * block_bytes), three.end(), std::byte{0xFF});
  EXPECT_EQ(first_bad_block(type, three), static_cast<int64_t>(2 * block_bytes));
}

INSTANTIATE_TEST_SUITE_P(Formats, BlockCheck,
                         ::testing::Values(DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                           DType::kQ2_K, DType::kQ3_K, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K,
                                           DType::kIQ4_NL, DType::kIQ4_XS, DType::kIQ3_XXS, DType::kIQ3_S,
                                           DType::kIQ2_XXS, DType::kIQ2_XS, DType::kIQ2_S, DType::kIQ1_S,
                                           DType::kIQ1_M),
                         [](const auto& test) { return std::string(dtype_name(test.param)); });

}  // namespace
}  // namespace moraine::quant

#include "quant/quantize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "quant/block_formats.h"
#include "quant/dequantize.h"
#include "quant/distortion.h"
#include "support/expect_error.h"
#include "support/random_values.h"

namespace moraine::quant {
namespace {

std::vector<float> through(DType type, const std::vector<float>& values) {
  std::vector<std::byte> blocks(row_bytes(type, static_cast<int64_t>(values.size())));
  quantize_row(type, values, blocks);
  std::vector<float> back(values.size());
  dequantize_row(type, blocks, back);
  return back;
}

/// The reference quantizer's formulas (shared facts of the format, docs/weight_formats.md), decoded: Q8_0 d = max|x| /
/// 127, Q4_0 d = (signed x of largest magnitude) / −8.
std::vector<float> through_reference(DType type, const std::vector<float>& values) {
  std::vector<float> back(values.size());
  for (size_t begin = 0; begin < values.size(); begin += 32) {
    const auto block = std::span(values).subspan(begin, 32);
    const float largest =
        *std::max_element(block.begin(), block.end(), [](float a, float b) { return std::abs(a) < std::abs(b); });
    const float d = type == DType::kQ8_0 ? std::abs(largest) / 127.0f : largest / -8.0f;
    const float stored_d = f32_from_f16(f16_from_f32(d));
    const float inverse = d == 0.0f ? 0.0f : 1.0f / d;
    for (size_t i = 0; i < 32; ++i) {
      const float q = type == DType::kQ8_0 ? std::round(block[i] * inverse)
                                           : std::min(15.0f, std::trunc(block[i] * inverse + 8.5f)) - 8.0f;
      back[begin + i] = q * stored_d;
    }
  }
  return back;
}

std::vector<std::vector<float>> distributions() {
  testing::RandomValues random(7);
  std::vector<std::vector<float>> sets = {random.weights(1 << 15)};
  std::vector<float> uniform(1 << 13), one_sided(1 << 13), scaled(1 << 13);
  for (float& v : uniform) v = static_cast<float>(random.uniform() * 2 - 1);
  for (float& v : one_sided) v = static_cast<float>(std::abs(random.normal()) * 1e-3);
  for (size_t i = 0; i < scaled.size(); ++i) {
    scaled[i] = static_cast<float>(random.normal() * std::exp2(static_cast<double>(i / 32 % 8) - 4.0));
  }
  sets.insert(sets.end(), {uniform, one_sided, scaled});
  return sets;
}

TEST(Quantize, Q8AndQ4AreNoWorseThanTheReference) {
  for (const auto& values : distributions()) {
    for (const DType type : {DType::kQ8_0, DType::kQ4_0}) {
      const double reference = rmse(values, through_reference(type, values));
      const double ours = rmse(values, through(type, values));
      EXPECT_LE(ours, 1.02 * reference) << dtype_name(type);
      EXPECT_GT(ours, 0.5 * reference) << dtype_name(type) << ": too good, so the reference is wrong";
    }
  }
}

TEST(Quantize, Q4SearchBeatsTheReferenceOnNormalWeights) {
  const auto values = testing::RandomValues(3).weights(1 << 15);
  EXPECT_LT(rmse(values, through(DType::kQ4_0, values)), 0.97 * rmse(values, through_reference(DType::kQ4_0, values)));
}

TEST(Quantize, Q4KIsClearlyBetterThanQ40) {
  for (const auto& values : distributions()) {
    EXPECT_LT(rmse(values, through(DType::kQ4_K, values)), 0.94 * rmse(values, through(DType::kQ4_0, values)));
  }
}

/// A Q8_0 weight is off by at most half a step, plus what rounding d to f16 shifts the largest codes by.
TEST(Quantize, Q8StaysWithinHalfAStep) {
  const auto values = testing::RandomValues(5).weights(1 << 12);
  const auto back = through(DType::kQ8_0, values);
  for (size_t begin = 0; begin < values.size(); begin += 32) {
    float largest = 0;
    for (size_t i = begin; i < begin + 32; ++i) largest = std::max(largest, std::abs(values[i]));
    for (size_t i = begin; i < begin + 32; ++i) {
      ASSERT_LE(std::abs(values[i] - back[i]), largest / 127 * (0.5f + 0x1p-10f) + largest * 0x1p-11f) << i;
    }
  }
}

TEST(Quantize, QuantizedNumbersAreFixedPoints) {
  const auto values = testing::RandomValues(11).weights(1 << 12);
  const auto once = through(DType::kQ8_0, values);
  EXPECT_LE(rmse(once, through(DType::kQ8_0, once)), 1e-3 * rmse(values, once));
}

TEST(Quantize, ConstantAndSparseBlocks) {
  for (const float constant : {0.0f, 1.0f, -1.0f, 3e-6f, -1000.0f}) {
    const std::vector<float> values(256, constant);
    for (const DType type : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_K}) {
      for (const float v : through(type, values)) {
        // 2^-22: half a unit of the smallest f16 scales, times code 8.
        ASSERT_NEAR(v, constant, std::abs(constant) * 0.03 + 0x1p-22) << dtype_name(type);
      }
    }
  }
  std::vector<float> lonely(256, 0.0f);
  lonely[77] = -2.5f;
  for (const DType type : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_K}) {
    const auto back = through(type, lonely);
    for (size_t i = 0; i < 256; ++i) ASSERT_NEAR(back[i], lonely[i], 2.5 * 0.002) << dtype_name(type) << " " << i;
  }
}

/// Where f16 scales are subnormal and coarse, and where they are large, the codes must still carry the weights.
TEST(Quantize, WorksFromTinyToHugeWeights) {
  for (const double scale : {1e-6, 1e-5, 1e-3, 1.0, 1e3, 1e4}) {
    const auto values = testing::RandomValues(13).weights(1 << 12, scale);
    EXPECT_LT(relative_error(values, through(DType::kQ8_0, values)), 0.02) << scale;
    EXPECT_LT(relative_error(values, through(DType::kQ4_0, values)), 0.15) << scale;
    EXPECT_LT(relative_error(values, through(DType::kQ4_K, values)), 0.15) << scale;
  }
}

TEST(Quantize, BelowTheSmallestScaleEverythingBecomesZero) {
  const auto values = testing::RandomValues(17).weights(256, 1e-38);
  for (const DType type : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_K}) {
    for (const float v : through(type, values)) ASSERT_EQ(v, 0.0f) << dtype_name(type);
  }
}

TEST(Quantize, RefusesWhatIsNotFiniteOrTooLarge) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_K}) {
    for (const float bad : {infinity, -infinity, nan}) {
      for (const size_t place : {size_t{0}, size_t{300}, size_t{511}}) {
        std::vector<float> values(512, 0.5f);
        values[place] = bad;
        testing::expect_error(ErrorKind::kBadFile, {std::to_string(place), dtype_name(type)},
                              [&] { through(type, values); });
      }
    }
  }
  for (const DType type : {DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_K}) {
    std::vector<float> values(256, 0.5f);
    values[9] = std::numeric_limits<float>::max();
    testing::expect_error(ErrorKind::kBadFile, {"value 9", "3.4028235e+38"}, [&] { through(type, values); });
  }
}

TEST(Quantize, LargestRepresentableMagnitudesGiveFiniteBlocks) {
  for (const DType type : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_K}) {
    std::vector<float> values(256, -2e6f);
    for (size_t i = 0; i < 256; i += 3) values[i] = 1.9e6f;
    if (type == DType::kQ4_0) {
      for (float& v : values) v *= 0.2f;
    }
    for (const float v : through(type, values)) ASSERT_TRUE(std::isfinite(v)) << dtype_name(type);
  }
}

TEST(Quantize, PlainTypesRound) {
  const std::vector<float> values = {1.0f, 1.0f + 0x1p-12f, -3.25f, 1e-7f};
  EXPECT_EQ(through(DType::kF32, values), values);
  EXPECT_EQ(through(DType::kF16, values)[1], 1.0f);
  EXPECT_EQ(through(DType::kBF16, values)[2], -3.25f);
}

TEST(Quantize, RowBytes) {
  EXPECT_EQ(row_bytes(DType::kQ4_K, 512), 288u);
  EXPECT_EQ(row_bytes(DType::kQ4_0, 96), 54u);
  EXPECT_EQ(row_bytes(DType::kQ8_0, 0), 0u);
  EXPECT_EQ(row_bytes(DType::kF8E4M3, 33), 33u);
  testing::expect_error(ErrorKind::kBadFile, {"Q4_K", "256", "128"}, [] { row_bytes(DType::kQ4_K, 128); });
  testing::expect_error(ErrorKind::kBadFile, {"-32"}, [] { row_bytes(DType::kQ8_0, -32); });
}

}  // namespace
}  // namespace moraine::quant

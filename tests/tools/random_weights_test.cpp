#include "tools/random_weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "quant/aligned_buffer.h"
#include "quant/dequantize.h"
#include "quant/packed_matrix.h"
#include "quant/quantize.h"

namespace moraine::tools {
namespace {

using quant::DType;

struct Moments {
  double mean = 0.0;
  double deviation = 0.0;
  bool finite = true;
};

Moments moments_of(std::span<const float> values) {
  Moments m;
  double squares = 0.0;
  for (const float value : values) {
    m.mean += value;
    squares += static_cast<double>(value) * value;
    m.finite = m.finite && std::isfinite(value);
  }
  m.mean /= static_cast<double>(values.size());
  m.deviation = std::sqrt(squares / static_cast<double>(values.size()) - m.mean * m.mean);
  return m;
}

/// Of 96 × 2048 values: the mean's own deviation is 1/443 of theirs. `tolerance` is for the deviation.
void expect_spread(const Moments& m, double mean, double deviation, double tolerance = 0.03) {
  EXPECT_TRUE(m.finite);
  EXPECT_NEAR(m.mean, mean, 0.02 * deviation);
  EXPECT_NEAR(m.deviation, deviation, tolerance * deviation);
}

TEST(LaneRandom, IsTheSameForASeedAndANameAndAnotherForOthers) {
  const auto bytes = [](uint64_t seed, std::string_view name) {
    std::vector<std::byte> out(1000);
    LaneRandom(seed, name).fill(out);
    return out;
  };
  EXPECT_EQ(bytes(1, "a"), bytes(1, "a"));
  EXPECT_NE(bytes(1, "a"), bytes(2, "a"));
  EXPECT_NE(bytes(1, "a"), bytes(1, "b"));
}

TEST(LaneRandom, UsesEveryByteValueAboutEvenly) {
  std::vector<std::byte> out(256 * 1000);
  LaneRandom(3, "bytes").fill(out);
  std::map<std::byte, int> counts;
  for (const std::byte byte : out) ++counts[byte];
  ASSERT_EQ(counts.size(), 256u);
  for (const auto& [byte, count] : counts) EXPECT_NEAR(count, 1000, 200) << static_cast<int>(byte);  // 6 deviations
}

TEST(LaneRandom, PiecesOf64BytesMakeTheWhole) {
  std::vector<std::byte> whole(640), pieces(640);
  LaneRandom(1, "x").fill(whole);
  LaneRandom random(1, "x");
  random.fill(std::span(pieces).first(64));
  random.fill(std::span(pieces).subspan(64));
  EXPECT_EQ(whole, pieces);
}

class FillTensor : public ::testing::TestWithParam<DType> {};
TEST_P(FillTensor, GivesRowsWithTheWantedSpread) {
  std::vector<float> values(96 * 2048);
  std::vector<std::byte> bytes(quant::row_bytes(GetParam(), static_cast<int64_t>(values.size())));
  LaneRandom random(5, "t");
  fill_tensor(random, GetParam(), {.deviation = 0.02f}, bytes);
  if (GetParam() == DType::kF8E4M3) {
    const std::vector<float> scale(16, 1.0f);  // [1, 2048 / 128]
    quant::dequantize_fp8(bytes, scale, 96, 2048, values);
    expect_spread(moments_of(values), 0.0, kE4m3Deviation);
  } else {
    quant::dequantize_row(GetParam(), bytes, values);
    expect_spread(moments_of(values), 0.0, 0.02);
  }
}
INSTANTIATE_TEST_SUITE_P(Types, FillTensor,
                         ::testing::Values(DType::kF32, DType::kBF16, DType::kF8E4M3, DType::kQ8_0, DType::kQ4_0,
                                           DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ2_K, DType::kQ3_K,
                                           DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS),
                         [](const auto& param) { return std::string(quant::dtype_name(param.param)); });

TEST(FillTensor, PlainNumbersMayHaveAMean) {
  std::vector<float> values(5000);
  LaneRandom random(5, "norm");
  fill_tensor(random, DType::kF32, {.mean = 1.0f, .deviation = 0.02f}, std::as_writable_bytes(std::span(values)));
  const Moments m = moments_of(values);
  EXPECT_NEAR(m.mean, 1.0, 0.002);
  EXPECT_NEAR(m.deviation, 0.02, 0.002);
}

class FillPacked : public ::testing::TestWithParam<DType> {};
TEST_P(FillPacked, GivesAMatrixWithTheWantedSpread) {
  const quant::MatrixDesc matrix{GetParam(), 96, 2048};
  quant::AlignedBuffer storage(quant::packed_bytes(matrix.type, matrix.rows, matrix.cols));
  LaneRandom random(5, "p");
  fill_packed(random, matrix, 0.02f, storage.span());
  std::vector<float> values(96 * 2048);
  quant::dequantize_packed({matrix.type, matrix.rows, matrix.cols, storage.data()}, 0, matrix.rows, values);
  // F8_E4M3 has but 16 scales here, a tenth apart; a row of Q4_K but 64 group scales from 0 to 63.
  expect_spread(moments_of(values), 0.0, 0.02, GetParam() == DType::kF8E4M3 ? 0.1 : 0.03);
  for (size_t row = 0; row < 96; ++row) {  // no row may be left out, or have another's scale
    EXPECT_NEAR(moments_of(std::span(values).subspan(row * 2048, 2048)).deviation, 0.02, 0.008) << row;
  }
}
INSTANTIATE_TEST_SUITE_P(Types, FillPacked,
                         ::testing::Values(DType::kBF16, DType::kF8E4M3, DType::kQ8_0, DType::kQ4_0, DType::kQ4_K,
                                           DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ2_K, DType::kQ3_K,
                                           DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS),
                         [](const auto& param) { return std::string(quant::dtype_name(param.param)); });

TEST(FillPacked, ColumnsThatAreNoMultipleOfAScaleLineWork) {
  // 96 columns: 3 blocks, 96 bytes of scales per group, padded to 64.
  for (const DType type : {DType::kQ8_0, DType::kQ4_0}) {
    const quant::MatrixDesc matrix{type, 32, 96};
    quant::AlignedBuffer storage(quant::packed_bytes(type, 32, 96));
    LaneRandom random(5, "p");
    fill_packed(random, matrix, 0.02f, storage.span());
    std::vector<float> values(32 * 96);
    quant::dequantize_packed({type, 32, 96, storage.data()}, 0, 32, values);
    EXPECT_NEAR(moments_of(values).deviation, 0.02, 0.002);
  }
}

}  // namespace
}  // namespace moraine::tools

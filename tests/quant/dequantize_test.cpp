#include "quant/dequantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "quant/block_formats.h"
#include "quant/json.h"
#include "support/temp_dir.h"

namespace moraine::quant {
namespace {

const std::filesystem::path kGoldens = std::filesystem::path(MORAINE_SOURCE_DIR) / "tests/data/quant";

std::vector<float> golden_floats(const std::string& name) {
  const std::string bytes = testing::file_content(kGoldens / name);
  std::vector<float> values(bytes.size() / 4);
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

/// Bits, so that −0 and NaN count too.
void expect_same_bits(std::span<const float> got, std::span<const float> wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(wanted[i]))
        << "at " << i << ": " << got[i] << " instead of " << wanted[i];
  }
}

struct GoldenCase {
  DType type;
  const char* name;
};

class DequantizeGolden : public ::testing::TestWithParam<GoldenCase> {};

TEST_P(DequantizeGolden, IsBitExactWithTheGgufPackage) {
  const auto [type, name] = GetParam();
  const std::string blocks = testing::file_content(kGoldens / (std::string(name) + ".blocks.bin"));
  const std::vector<float> wanted = golden_floats(std::string(name) + ".f32.bin");
  ASSERT_GE(wanted.size(), 384u);
  std::vector<float> got(wanted.size());
  dequantize_row(type, std::as_bytes(std::span(blocks)), got);
  expect_same_bits(got, wanted);
}

INSTANTIATE_TEST_SUITE_P(Formats, DequantizeGolden,
                         ::testing::Values(GoldenCase{DType::kF16, "f16"}, GoldenCase{DType::kBF16, "bf16"},
                                           GoldenCase{DType::kQ8_0, "q8_0"}, GoldenCase{DType::kQ4_0, "q4_0"},
                                           GoldenCase{DType::kQ4_1, "q4_1"}, GoldenCase{DType::kQ5_0, "q5_0"},
                                           GoldenCase{DType::kQ5_1, "q5_1"}, GoldenCase{DType::kQ2_K, "q2_k"},
                                           GoldenCase{DType::kQ3_K, "q3_k"}, GoldenCase{DType::kQ4_K, "q4_k"},
                                           GoldenCase{DType::kQ5_K, "q5_k"}, GoldenCase{DType::kQ6_K, "q6_k"},
                                           GoldenCase{DType::kIQ4_NL, "iq4_nl"}, GoldenCase{DType::kIQ4_XS, "iq4_xs"},
                                           GoldenCase{DType::kIQ3_XXS, "iq3_xxs"}, GoldenCase{DType::kIQ3_S, "iq3_s"},
                                           GoldenCase{DType::kIQ2_XXS, "iq2_xxs"}, GoldenCase{DType::kIQ2_XS, "iq2_xs"},
                                           GoldenCase{DType::kIQ2_S, "iq2_s"}, GoldenCase{DType::kIQ1_S, "iq1_s"},
                                           GoldenCase{DType::kIQ1_M, "iq1_m"}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(Dequantize, E4m3TableMatchesTheGolden) {
  const Json table = read_json(kGoldens / "fp8_e4m3fn_table.json");
  ASSERT_EQ(table.size(), 256u);
  for (size_t i = 0; i < 256; ++i) {
    const float got = f32_from_e4m3(static_cast<uint8_t>(i));
    if (table[i].is_null()) {
      EXPECT_TRUE(std::isnan(got)) << i;
    } else {
      EXPECT_EQ(got, table[i].get<float>()) << i;
      EXPECT_EQ(std::signbit(got), i >= 128) << i;
    }
  }
  EXPECT_TRUE(std::isnan(f32_from_e4m3(0x7f)));
  EXPECT_TRUE(std::isnan(f32_from_e4m3(0xff)));
  EXPECT_EQ(f32_from_e4m3(0x7e), 448.0f);
}

TEST(Dequantize, Fp8WithBlockScalesMatchesTheGolden) {
  const std::string bytes = testing::file_content(kGoldens / "fp8_block_200x300.e4m3.bin");
  const std::vector<float> scales = golden_floats("fp8_block_2x3.scale_inv.f32.bin");
  const std::vector<float> wanted = golden_floats("fp8_block_200x300.f32.bin");
  std::vector<float> got(wanted.size());
  dequantize_fp8(std::as_bytes(std::span(bytes)), scales, 200, 300, got);
  expect_same_bits(got, wanted);
}

TEST(Dequantize, PlainF32IsCopied) {
  const std::vector<float> values = {1.5f, -0.0f, 3e-45f};
  std::vector<float> got(3);
  dequantize_row(DType::kF32, std::as_bytes(std::span(values)), got);
  expect_same_bits(got, values);
}

TEST(Dequantize, EveryF16SurvivesARoundTrip) {
  for (uint32_t half = 0; half < 0x10000; ++half) {
    const float value = f32_from_f16(static_cast<uint16_t>(half));
    if ((half & 0x7fff) > 0x7c00) {
      ASSERT_TRUE(std::isnan(value)) << half;
      ASSERT_TRUE(std::isnan(f32_from_f16(f16_from_f32(value)))) << half;
    } else {
      ASSERT_EQ(f16_from_f32(value), half);
    }
  }
}

/// Between each pair of neighbouring f16 numbers: just below the middle, the middle (ties to even), just above it.
TEST(Dequantize, F16RoundsToNearestEven) {
  for (uint16_t half = 0; half < 0x7bff; ++half) {
    const auto next = static_cast<uint16_t>(half + 1);
    const float middle = (f32_from_f16(half) + f32_from_f16(next)) / 2;  // exact in f32
    ASSERT_EQ(f16_from_f32(std::nextafter(middle, 0.0f)), half);
    ASSERT_EQ(f16_from_f32(middle), half % 2 == 0 ? half : next);
    ASSERT_EQ(f16_from_f32(std::nextafter(middle, 1e9f)), next);
    ASSERT_EQ(f16_from_f32(-middle), (half % 2 == 0 ? half : next) | 0x8000);
  }
}

TEST(Dequantize, F16Extremes) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(f16_from_f32(65504.0f), 0x7bff);
  EXPECT_EQ(f16_from_f32(std::nextafter(65520.0f, 0.0f)), 0x7bff);
  EXPECT_EQ(f16_from_f32(65520.0f), 0x7c00);
  EXPECT_EQ(f16_from_f32(-infinity), 0xfc00);
  EXPECT_EQ(f16_from_f32(0x1p-25f), 0);  // half of the smallest: ties to even
  EXPECT_EQ(f16_from_f32(0x1.1p-25f), 1);
  EXPECT_EQ(f16_from_f32(-0.0f), 0x8000);
  EXPECT_EQ(f16_from_f32(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(f32_from_f16(0x7c00), infinity);
  EXPECT_EQ(f32_from_f16(1), 0x1p-24f);
}

TEST(Dequantize, Bf16RoundsToNearestEven) {
  EXPECT_EQ(bf16_from_f32(1.0f), 0x3f80);
  EXPECT_EQ(bf16_from_f32(1.0f + 0x1p-8f), 0x3f80);      // middle, even below
  EXPECT_EQ(bf16_from_f32(1.0f + 3 * 0x1p-8f), 0x3f82);  // middle, even above
  EXPECT_EQ(bf16_from_f32(1.0f + 0x1p-8f + 0x1p-23f), 0x3f81);
  EXPECT_EQ(bf16_from_f32(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_TRUE(std::isnan(f32_from_bf16(bf16_from_f32(std::bit_cast<float>(0x7f800001u)))));
}

}  // namespace
}  // namespace moraine::quant

#include "quant/quantize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "quant/block_formats.h"
#include "quant/checksum.h"
#include "quant/dequantize.h"
#include "quant/distortion.h"
#include "quant/json.h"
#include "quant/quantize_affine.h"
#include "quant/quantize_block.h"
#include "quant/quantize_signed.h"
#include "support/expect_error.h"
#include "support/random_values.h"
#include "support/test_data.h"

namespace moraine::quant {
namespace {

constexpr DType kBlockFormats[] = {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,   DType::kQ5_0,
                                   DType::kQ5_1, DType::kQ2_K, DType::kQ3_K,   DType::kQ4_K,
                                   DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS};

std::vector<float> through(DType type, const std::vector<float>& values) {
  std::vector<std::byte> blocks(row_bytes(type, static_cast<int64_t>(values.size())));
  quantize_row(type, values, blocks);
  std::vector<float> back(values.size());
  dequantize_row(type, blocks, back);
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

/// What ggml's own quantizer makes of the same weights (tests/data/quant/make_reference_errors.py).
class ReferenceErrors {
 public:
  double of(DType type, const std::string& set) const { return errors_[std::string(dtype_name(type))][set]; }

 private:
  Json errors_ = read_json(testing::test_data("quant/reference_errors.json"));
};

TEST(Quantize, NoFormatIsWorseThanTheReferenceQuantizer) {
  const ReferenceErrors reference;
  const std::vector<std::vector<float>> sets = distributions();
  const std::string names[] = {"weights", "uniform", "one_sided", "scaled"};
  for (const DType type : kBlockFormats) {
    for (size_t i = 0; i < sets.size(); ++i) {
      const double error = rmse(sets[i], through(type, sets[i])) / reference.of(type, names[i]);
      EXPECT_LE(error, 1.02) << dtype_name(type) << " " << names[i];
      EXPECT_GT(error, 0.5) << dtype_name(type) << " " << names[i] << ": too good, so the reference is wrong";
    }
  }
}

TEST(Quantize, SearchesBeatTheReferenceOnNormalWeights) {
  const ReferenceErrors reference;
  const auto values = testing::RandomValues(1).weights(1 << 20, 1.0);
  for (const DType type : kBlockFormats) {
    if (type == DType::kQ8_0) continue;  // has nothing to search
    EXPECT_LT(rmse(values, through(type, values)), 0.98 * reference.of(type, "normal")) << dtype_name(type);
  }
}

/// Root mean square error ÷ deviation on 2^20 normal weights: what was measured (docs/weight_formats.md) plus 0.3 %.
TEST(Quantize, ErrorOnNormalWeights) {
  const auto values = testing::RandomValues(1).weights(1 << 20, 1.0);
  const std::pair<DType, double> bounds[] = {{DType::kQ2_K, 0.3121},   {DType::kQ3_K, 0.1872}, {DType::kIQ4_XS, 0.0987},
                                             {DType::kIQ4_NL, 0.0975}, {DType::kQ4_0, 0.1176}, {DType::kQ4_K, 0.0882},
                                             {DType::kQ4_1, 0.0875},   {DType::kQ5_0, 0.0589}, {DType::kQ5_K, 0.0437},
                                             {DType::kQ5_1, 0.0423},   {DType::kQ6_K, 0.0230}, {DType::kQ8_0, 0.0078}};
  for (const auto& [type, bound] : bounds) {
    const double error = rmse(values, through(type, values));
    EXPECT_LE(error, bound) << dtype_name(type);
    EXPECT_GT(error, 0.98 * bound) << dtype_name(type) << " has become better: lower the bound";
  }
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
    for (const DType type : kBlockFormats) {
      for (const float v : through(type, values)) {
        // 2^-22: half a unit of the smallest f16 scales, times code 8.
        ASSERT_NEAR(v, constant, std::abs(constant) * 0.03 + 0x1p-22) << dtype_name(type);
      }
    }
  }
  std::vector<float> lonely(256, 0.0f);
  lonely[77] = -2.5f;
  for (const DType type : kBlockFormats) {
    const auto back = through(type, lonely);
    // No code of the IQ4 formats stands for 0: the nearest is a 127th of the largest.
    const bool has_zero = type != DType::kIQ4_NL && type != DType::kIQ4_XS;
    for (size_t i = 0; i < 256; ++i) {
      ASSERT_NEAR(back[i], lonely[i], 2.5 * (has_zero ? 0.002 : 0.01)) << dtype_name(type) << " " << i;
    }
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
  for (const DType type : kBlockFormats) {
    for (const float v : through(type, values)) ASSERT_EQ(v, 0.0f) << dtype_name(type);
  }
}

TEST(Quantize, RefusesWhatIsNotFiniteOrTooLarge) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_K,
                           DType::kQ2_K, DType::kQ3_K, DType::kQ6_K, DType::kIQ4_XS, DType::kQ5_1}) {
    for (const float bad : {infinity, -infinity, nan}) {
      for (const size_t place : {size_t{0}, size_t{300}, size_t{511}}) {
        std::vector<float> values(512, 0.5f);
        values[place] = bad;
        testing::expect_error(ErrorKind::kBadFile, {std::to_string(place), dtype_name(type)},
                              [&] { through(type, values); });
      }
    }
  }
  for (const DType type : kBlockFormats) {
    std::vector<float> values(256, 0.5f);
    values[9] = std::numeric_limits<float>::max();
    testing::expect_error(ErrorKind::kBadFile, {"value 9", "3.4028235e+38"}, [&] { through(type, values); });
  }
}

TEST(Quantize, LargestRepresentableMagnitudesGiveFiniteBlocks) {
  for (const DType type : kBlockFormats) {
    std::vector<float> values(256, -2e6f);
    for (size_t i = 0; i < 256; i += 3) values[i] = 1.9e6f;
    if (type == DType::kQ4_0 || type == DType::kQ5_0 || type == DType::kQ2_K) {
      for (float& v : values) v *= 0.2f;
    } else if (type == DType::kQ4_1 || type == DType::kQ5_1) {
      for (float& v : values) v *= 0.03f;
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

/// Weights of all sizes without a call to the math library, which is not the same everywhere: sums of four random
/// numbers times 2^-6 … 2^5, some blocks of zeros, of one value, and of numbers near f16's smallest and largest.
std::vector<float> portable_weights(size_t count) {
  std::vector<float> values(count);
  uint64_t state = 88172645463325252u;  // xorshift64, Marsaglia 2003
  const auto next = [&] {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return static_cast<float>(static_cast<int32_t>(state >> 40 & 0xffff) - 0x8000);
  };
  for (size_t i = 0; i < count; ++i) {
    const size_t block = i / 256;
    float scale = std::ldexp(1.0f, static_cast<int>(block % 12) - 6 - 17);
    if (block % 13 == 1) scale = i % 256 / 32 % 2 == 0 ? 0.0f : scale;
    if (block % 13 == 2) scale = 0x1p-40f;
    if (block % 13 == 3) scale = 0x1p-4f;
    values[i] = (next() + next() + next() + next()) * scale;
    if (block % 13 == 4) values[i] = 0.75f;
    if (block % 13 == 5) values[i] = std::abs(values[i]);
    if (block % 13 == 6) values[i] = -std::abs(values[i]);
  }
  return values;
}

/// Packs that exist were made with these bytes, and an interrupted conversion goes on with another build: they may only
/// change with a reason. XXH3-64 of what the scalar quantizers wrote before eight groups were done side by side.
TEST(Quantize, TheBytesAreAsEver) {
  const std::pair<DType, uint64_t> sums[] = {
      {DType::kQ8_0, 0xf5dcaa882416b391u},   {DType::kQ4_0, 0x2f03ff14c245ab99u},
      {DType::kQ4_1, 0xfac7b63ff9006cfbu},   {DType::kQ5_0, 0xa8edc01750b11b3cu},
      {DType::kQ5_1, 0x5288c07eadaed8a7u},   {DType::kQ2_K, 0x90cf72c48d4ebec1u},
      {DType::kQ3_K, 0xe6a4efaec41016aau},   {DType::kQ4_K, 0x0994c4de777844afu},
      {DType::kQ5_K, 0x629002555aac977cu},   {DType::kQ6_K, 0x64259d4705f5d45cu},
      {DType::kIQ4_NL, 0x84019e8a2491eaa0u}, {DType::kIQ4_XS, 0x488b1fbf5a90bab6u}};
  const std::vector<float> values = portable_weights(1 << 16);
  for (const auto& [type, sum] : sums) {
    std::vector<std::byte> blocks(row_bytes(type, static_cast<int64_t>(values.size())));
    quantize_row(type, values, blocks);
    EXPECT_EQ(checksum_text(checksum(blocks)), checksum_text(sum)) << dtype_name(type);
  }
}

template <class Quantizer, typename Block>
void expect_same_bytes_without_avx2(Block, const char* name) {
  const std::vector<float> values = portable_weights(1 << 14);
  for (size_t begin = 0; begin < values.size(); begin += Block::kElements) {
    Block plain, widest;
    ASSERT_TRUE(Quantizer::quantize(values.data() + begin, plain));
    ASSERT_TRUE(quantize_block(values.data() + begin, widest));
    ASSERT_EQ(std::memcmp(&plain, &widest, sizeof(Block)), 0) << name << " at " << begin;
  }
}

TEST(Quantize, EveryInstructionSetWritesTheSameBytes) {
  using namespace quantize_detail;
  expect_same_bytes_without_avx2<QuantizerQ2_K>(BlockQ2_K{}, "Q2_K");
  expect_same_bytes_without_avx2<QuantizerQ3_K>(BlockQ3_K{}, "Q3_K");
  expect_same_bytes_without_avx2<QuantizerQ4_K>(BlockQ4_K{}, "Q4_K");
  expect_same_bytes_without_avx2<QuantizerQ5_K>(BlockQ5_K{}, "Q5_K");
  expect_same_bytes_without_avx2<QuantizerQ6_K>(BlockQ6_K{}, "Q6_K");
  expect_same_bytes_without_avx2<QuantizerIQ4_XS>(BlockIQ4_XS{}, "IQ4_XS");
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

#include "quant/dtype.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace moraine::quant {
namespace {

constexpr int kDTypeCount = static_cast<int>(DType::kF6E3M2) + 1;

TEST(DType, EveryNameLeadsBackToItsType) {
  std::set<std::string_view> names;
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto type = static_cast<DType>(i);
    EXPECT_EQ(dtype_from_name(dtype_name(type)), type) << dtype_name(type);
    names.insert(dtype_name(type));
  }
  EXPECT_EQ(names.size(), static_cast<size_t>(kDTypeCount));
}

TEST(DType, NamesAreExact) {
  EXPECT_EQ(dtype_from_name("F8_E4M3"), DType::kF8E4M3);
  EXPECT_EQ(dtype_from_name("F8_E4M3FNUZ"), DType::kF8E4M3Fnuz);
  EXPECT_EQ(dtype_from_name("Q4_K"), DType::kQ4_K);
  for (const char* unknown : {"", "f32", "F8_E4M3FN", "F32 ", "FLOAT", "BFLOAT16"}) {
    EXPECT_EQ(dtype_from_name(unknown), std::nullopt) << unknown;
  }
}

TEST(DType, BitsOfPlainNumbers) {
  // shared/spec/safetensors.md §2
  const std::pair<const char*, int64_t> expected[] = {
      {"BOOL", 8},        {"U8", 8},          {"I8", 8},      {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8},
      {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
      {"I32", 32},        {"U32", 32},        {"F32", 32},    {"I64", 64},    {"U64", 64},    {"F64", 64},
      {"C64", 64},        {"F4", 4},          {"F6_E2M3", 6}, {"F6_E3M2", 6}};
  for (const auto& [name, bits] : expected) {
    const auto type = dtype_from_name(name);
    ASSERT_TRUE(type) << name;
    EXPECT_EQ(block_bits(*type), bits) << name;
    EXPECT_EQ(block_elements(*type), 1) << name;
  }
}

TEST(DType, BlockFormats) {
  EXPECT_EQ(block_elements(DType::kQ8_0), 32);
  EXPECT_EQ(block_bits(DType::kQ8_0), 34 * 8);
  EXPECT_EQ(block_elements(DType::kQ4_0), 32);
  EXPECT_EQ(block_bits(DType::kQ4_0), 18 * 8);
  EXPECT_EQ(block_elements(DType::kQ4_K), 256);
  EXPECT_EQ(block_bits(DType::kQ4_K), 144 * 8);
}

TEST(DType, WeightTypes) {
  const std::set<DType> weights = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kF8E4M3,
                                   DType::kQ8_0, DType::kQ4_0, DType::kQ4_K};
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto type = static_cast<DType>(i);
    EXPECT_EQ(is_weight_dtype(type), weights.contains(type)) << dtype_name(type);
  }
}

}  // namespace
}  // namespace moraine::quant

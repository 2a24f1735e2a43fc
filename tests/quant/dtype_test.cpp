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

/// ggml's public table: number, elements and bytes of a block.
TEST(DType, BlockFormatsAreThoseOfGguf) {
  const struct {
    DType type;
    uint32_t ggml_type;
    int64_t elements, bytes;
  } expected[] = {{DType::kQ8_0, 8, 32, 34},      {DType::kQ4_0, 2, 32, 18},     {DType::kQ4_1, 3, 32, 20},
                  {DType::kQ5_0, 6, 32, 22},      {DType::kQ5_1, 7, 32, 24},     {DType::kQ2_K, 10, 256, 84},
                  {DType::kQ3_K, 11, 256, 110},   {DType::kQ4_K, 12, 256, 144},  {DType::kQ5_K, 13, 256, 176},
                  {DType::kQ6_K, 14, 256, 210},   {DType::kIQ4_NL, 20, 32, 18},  {DType::kIQ4_XS, 23, 256, 136},
                  {DType::kIQ3_XXS, 18, 256, 98}, {DType::kIQ3_S, 21, 256, 110}, {DType::kIQ2_XXS, 16, 256, 66},
                  {DType::kIQ2_XS, 17, 256, 74},  {DType::kIQ2_S, 22, 256, 82},  {DType::kIQ1_S, 19, 256, 50},
                  {DType::kIQ1_M, 29, 256, 56},   {DType::kF32, 0, 1, 4},        {DType::kF16, 1, 1, 2},
                  {DType::kBF16, 30, 1, 2},       {DType::kF64, 28, 1, 8},       {DType::kI32, 26, 1, 4}};
  for (const auto& [type, number, elements, bytes] : expected) {
    EXPECT_EQ(block_elements(type), elements) << dtype_name(type);
    EXPECT_EQ(block_bits(type), 8 * bytes) << dtype_name(type);
    EXPECT_EQ(ggml_type(type), number) << dtype_name(type);
    EXPECT_EQ(dtype_from_ggml_type(number), type) << dtype_name(type);
  }
}

TEST(DType, GgmlNumbersWithoutADTypeAreNothing) {
  // Removed (4, 5, 31 – 33, 36 – 38), of run time (9, 15), not supported (34, 35, 39 – 41), unknown.
  for (const uint32_t number : {4u, 5u, 9u, 15u, 31u, 33u, 34u, 35u, 36u, 38u, 39u, 41u, 97u, 0xffffffffu}) {
    EXPECT_EQ(dtype_from_ggml_type(number), std::nullopt) << number;
  }
  EXPECT_EQ(ggml_type(DType::kF8E4M3), std::nullopt);
}

TEST(DType, WeightTypesArePlainNumbersAndBlockFormats) {
  const std::set<DType> plain = {DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3};
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto type = static_cast<DType>(i);
    EXPECT_EQ(is_weight_dtype(type), plain.contains(type) || block_elements(type) > 1) << dtype_name(type);
  }
}

}  // namespace
}  // namespace moraine::quant

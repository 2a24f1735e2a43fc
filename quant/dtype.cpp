#include "quant/dtype.h"

#include <array>

#include "quant/error.h"

namespace moraine::quant {
namespace {

constexpr int kNoGgmlType = -1;

struct DTypeFacts {
  DType type;
  std::string_view name;
  int64_t block_elements;
  int64_t block_bits;
  int ggml_type = kNoGgmlType;
};

/// One row per DType, in the enum's order. Names of plain numbers are those of safetensors, of block formats GGUF's;
/// F8_E4M3 is e4m3fn. Bytes of blocks and type numbers: ggml's public table (docs/weight_formats.md).
constexpr std::array kFacts = {
    DTypeFacts{DType::kF32, "F32", 1, 32, 0},
    DTypeFacts{DType::kF16, "F16", 1, 16, 1},
    DTypeFacts{DType::kBF16, "BF16", 1, 16, 30},
    DTypeFacts{DType::kF8E4M3, "F8_E4M3", 1, 8},
    DTypeFacts{DType::kQ8_0, "Q8_0", 32, 8 * 34, 8},
    DTypeFacts{DType::kQ4_0, "Q4_0", 32, 8 * 18, 2},
    DTypeFacts{DType::kQ4_1, "Q4_1", 32, 8 * 20, 3},
    DTypeFacts{DType::kQ5_0, "Q5_0", 32, 8 * 22, 6},
    DTypeFacts{DType::kQ5_1, "Q5_1", 32, 8 * 24, 7},
    DTypeFacts{DType::kQ2_K, "Q2_K", 256, 8 * 84, 10},
    DTypeFacts{DType::kQ3_K, "Q3_K", 256, 8 * 110, 11},
    DTypeFacts{DType::kQ4_K, "Q4_K", 256, 8 * 144, 12},
    DTypeFacts{DType::kQ5_K, "Q5_K", 256, 8 * 176, 13},
    DTypeFacts{DType::kQ6_K, "Q6_K", 256, 8 * 210, 14},
    DTypeFacts{DType::kIQ4_NL, "IQ4_NL", 32, 8 * 18, 20},
    DTypeFacts{DType::kIQ4_XS, "IQ4_XS", 256, 8 * 136, 23},
    DTypeFacts{DType::kIQ3_XXS, "IQ3_XXS", 256, 8 * 98, 18},
    DTypeFacts{DType::kIQ3_S, "IQ3_S", 256, 8 * 110, 21},
    DTypeFacts{DType::kIQ2_XXS, "IQ2_XXS", 256, 8 * 66, 16},
    DTypeFacts{DType::kIQ2_XS, "IQ2_XS", 256, 8 * 74, 17},
    DTypeFacts{DType::kIQ2_S, "IQ2_S", 256, 8 * 82, 22},
    DTypeFacts{DType::kIQ1_S, "IQ1_S", 256, 8 * 50, 19},
    DTypeFacts{DType::kIQ1_M, "IQ1_M", 256, 8 * 56, 29},
    DTypeFacts{DType::kBool, "BOOL", 1, 8},
    DTypeFacts{DType::kU8, "U8", 1, 8},
    DTypeFacts{DType::kI8, "I8", 1, 8, 24},
    DTypeFacts{DType::kF8E5M2, "F8_E5M2", 1, 8},
    DTypeFacts{DType::kF8E8M0, "F8_E8M0", 1, 8},
    DTypeFacts{DType::kF8E4M3Fnuz, "F8_E4M3FNUZ", 1, 8},
    DTypeFacts{DType::kF8E5M2Fnuz, "F8_E5M2FNUZ", 1, 8},
    DTypeFacts{DType::kI16, "I16", 1, 16, 25},
    DTypeFacts{DType::kU16, "U16", 1, 16},
    DTypeFacts{DType::kI32, "I32", 1, 32, 26},
    DTypeFacts{DType::kU32, "U32", 1, 32},
    DTypeFacts{DType::kI64, "I64", 1, 64, 27},
    DTypeFacts{DType::kU64, "U64", 1, 64},
    DTypeFacts{DType::kF64, "F64", 1, 64, 28},
    DTypeFacts{DType::kC64, "C64", 1, 64},
    DTypeFacts{DType::kF4, "F4", 1, 4},
    DTypeFacts{DType::kF6E2M3, "F6_E2M3", 1, 6},
    DTypeFacts{DType::kF6E3M2, "F6_E3M2", 1, 6},
};

constexpr bool in_enum_order() {
  for (size_t i = 0; i < kFacts.size(); ++i) {
    if (static_cast<size_t>(kFacts[i].type) != i) return false;
  }
  return kFacts.size() == static_cast<size_t>(DType::kF6E3M2) + 1;
}
static_assert(in_enum_order());

const DTypeFacts& facts(DType type) {
  const auto index = static_cast<size_t>(type);
  MORAINE_CHECK(index < kFacts.size());
  return kFacts[index];
}

}  // namespace

std::string_view dtype_name(DType type) {
  return facts(type).name;
}

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const DTypeFacts& entry : kFacts) {
    if (entry.name == name) return entry.type;
  }
  return std::nullopt;
}

int64_t block_elements(DType type) {
  return facts(type).block_elements;
}

int64_t block_bits(DType type) {
  return facts(type).block_bits;
}

bool is_weight_dtype(DType type) {
  return type <= DType::kIQ1_M;
}

std::optional<DType> dtype_from_ggml_type(uint32_t ggml_type) {
  for (const DTypeFacts& entry : kFacts) {
    if (entry.ggml_type != kNoGgmlType && static_cast<uint32_t>(entry.ggml_type) == ggml_type) return entry.type;
  }
  return std::nullopt;
}

std::optional<uint32_t> ggml_type(DType type) {
  const int number = facts(type).ggml_type;
  if (number == kNoGgmlType) return std::nullopt;
  return static_cast<uint32_t>(number);
}

}  // namespace moraine::quant

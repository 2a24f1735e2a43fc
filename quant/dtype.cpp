#include "quant/dtype.h"

#include <array>

#include "quant/error.h"

namespace moraine::quant {
namespace {

struct DTypeFacts {
  DType type;
  std::string_view name;
  int64_t block_elements;
  int64_t block_bits;
};

/// One row per DType, in the enum's order. Names of plain numbers are those of safetensors, of block formats GGUF's;
/// F8_E4M3 is e4m3fn. Block sizes: Q8_0 an f16 scale and 32 bytes; Q4_0 an f16 scale and 32 nibbles; Q4_K two f16,
/// 12 bytes of 6-bit scales and minima, and 256 nibbles.
constexpr std::array kFacts = {
    DTypeFacts{DType::kF32, "F32", 1, 32},
    DTypeFacts{DType::kF16, "F16", 1, 16},
    DTypeFacts{DType::kBF16, "BF16", 1, 16},
    DTypeFacts{DType::kF8E4M3, "F8_E4M3", 1, 8},
    DTypeFacts{DType::kQ8_0, "Q8_0", 32, 8 * (2 + 32)},
    DTypeFacts{DType::kQ4_0, "Q4_0", 32, 8 * (2 + 16)},
    DTypeFacts{DType::kQ4_K, "Q4_K", 256, 8 * (2 + 2 + 12 + 128)},
    DTypeFacts{DType::kBool, "BOOL", 1, 8},
    DTypeFacts{DType::kU8, "U8", 1, 8},
    DTypeFacts{DType::kI8, "I8", 1, 8},
    DTypeFacts{DType::kF8E5M2, "F8_E5M2", 1, 8},
    DTypeFacts{DType::kF8E8M0, "F8_E8M0", 1, 8},
    DTypeFacts{DType::kF8E4M3Fnuz, "F8_E4M3FNUZ", 1, 8},
    DTypeFacts{DType::kF8E5M2Fnuz, "F8_E5M2FNUZ", 1, 8},
    DTypeFacts{DType::kI16, "I16", 1, 16},
    DTypeFacts{DType::kU16, "U16", 1, 16},
    DTypeFacts{DType::kI32, "I32", 1, 32},
    DTypeFacts{DType::kU32, "U32", 1, 32},
    DTypeFacts{DType::kI64, "I64", 1, 64},
    DTypeFacts{DType::kU64, "U64", 1, 64},
    DTypeFacts{DType::kF64, "F64", 1, 64},
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
  return type <= DType::kQ4_K;
}

}  // namespace moraine::quant

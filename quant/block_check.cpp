#include "quant/block_check.h"

#include <array>
#include <cstring>

#include "quant/error.h"

namespace moraine::quant {
namespace {

constexpr int kNone = -1;

/// Where a block keeps its f16 numbers.
struct ScaleOffsets {
  int first = kNone;
  int second = kNone;
};

/// Layouts: docs/weight_formats.md.
ScaleOffsets scale_offsets(DType type) {
  switch (type) {
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
      return {0, 2};
    case DType::kQ2_K:
      return {80, 82};
    case DType::kQ3_K:
      return {108, kNone};
    case DType::kQ6_K:
      return {208, kNone};
    case DType::kQ8_0:
    case DType::kQ4_0:
    case DType::kQ5_0:
    case DType::kIQ4_NL:
    case DType::kIQ4_XS:
    case DType::kIQ3_XXS:
    case DType::kIQ3_S:
    case DType::kIQ2_XXS:
    case DType::kIQ2_XS:
    case DType::kIQ2_S:
    case DType::kIQ1_S:
      return {0, kNone};
    default:
      MORAINE_CHECK(!"a block format");
      return {};
  }
}

bool is_finite_f16(uint16_t bits) {
  constexpr uint16_t kExponent = 0x7C00;
  return (bits & kExponent) != kExponent;
}

uint16_t f16_at(const std::byte* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof bits);
  return bits;
}

/// IQ1_M spreads its scale over the high nibbles of four numbers.
uint16_t iq1_m_scale(const std::byte* block) {
  constexpr size_t kScales = 48;
  uint16_t bits = 0;
  for (size_t i = 0; i < 4; ++i) {
    bits = static_cast<uint16_t>(bits | (f16_at(block + kScales + 2 * i) >> 12) << (4 * i));
  }
  return bits;
}

}  // namespace

int64_t first_bad_block(DType type, std::span<const std::byte> blocks) {
  const auto block_bytes = static_cast<size_t>(block_bits(type) / 8);
  MORAINE_CHECK(blocks.size() % block_bytes == 0);
  const bool spread = type == DType::kIQ1_M;
  const ScaleOffsets offsets = spread ? ScaleOffsets{} : scale_offsets(type);
  for (size_t at = 0; at < blocks.size(); at += block_bytes) {
    const std::byte* const block = blocks.data() + at;
    const bool good = spread ? is_finite_f16(iq1_m_scale(block))
                             : is_finite_f16(f16_at(block + offsets.first)) &&
                                   (offsets.second == kNone || is_finite_f16(f16_at(block + offsets.second)));
    if (!good) return static_cast<int64_t>(at);
  }
  return -1;
}

}  // namespace moraine::quant

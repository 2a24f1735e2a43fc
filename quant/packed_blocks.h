#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "quant/block_formats.h"
#include "quant/packed_matrix.h"

/// Where a block of one row lies inside a packed group of 16 rows (the orders in packed_matrix.h): scatter() puts block
/// number `b` of row `r` into `group`, gather() takes it out again.
namespace moraine::quant {

/// Plain numbers as blocks of one element, so that every type packs the same way.
struct ElementF32 {
  static constexpr int kElements = 1;
  float value;
};
struct ElementBf16 {
  static constexpr int kElements = 1;
  uint16_t value;
};
struct ElementE4m3 {
  static constexpr int kElements = 1;
  uint8_t value;
};

namespace packed_detail {

/// Copies 4-byte pieces between a contiguous run and the lanes of row r: piece i ↔ base[i][r][4].
inline void scatter_quads(const void* run, int quads, std::byte* base, int64_t r) {
  for (int i = 0; i < quads; ++i) {
    std::memcpy(base + (i * kRowGroup + r) * 4, static_cast<const std::byte*>(run) + 4 * i, 4);
  }
}

inline void gather_quads(const std::byte* base, int64_t r, int quads, void* run) {
  for (int i = 0; i < quads; ++i) {
    std::memcpy(static_cast<std::byte*>(run) + 4 * i, base + (i * kRowGroup + r) * 4, 4);
  }
}

/// GGUF pairs codes far apart in a row in one byte; the packed order pairs columns 4 apart. 32 codes of a row, one per
/// byte, ↔ 16 packed bytes: byte 4i + j has column 8i + j low and column 8i + j + 4 high.
inline void pair_codes(const uint8_t codes[32], uint8_t packed[16]) {
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      packed[4 * i + j] = static_cast<uint8_t>(codes[8 * i + j] | (codes[8 * i + j + 4] << 4));
    }
  }
}

inline void unpair_codes(const uint8_t packed[16], uint8_t codes[32]) {
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      codes[8 * i + j] = packed[4 * i + j] & 15;
      codes[8 * i + j + 4] = packed[4 * i + j] >> 4;
    }
  }
}

/// Bytes of a Q4_K super-block of 16 rows, and its parts.
constexpr int64_t kQ4_KDmin = 2 * kRowGroup;
constexpr int64_t kQ4_KScales = 4 * kRowGroup;
constexpr int64_t kQ4_KCodes = kQ4_KScales + 12 * kRowGroup;
constexpr int64_t kQ4_KBytes = 16 * static_cast<int64_t>(sizeof(BlockQ4_K));
static_assert(kQ4_KCodes + 128 * kRowGroup == kQ4_KBytes);

constexpr int64_t plain_offset(ElementF32, int64_t c, int64_t r) {
  return (c * kRowGroup + r) * 4;
}
constexpr int64_t plain_offset(ElementBf16, int64_t c, int64_t r) {
  return (c / 2 * kRowGroup + r) * 4 + c % 2 * 2;
}
constexpr int64_t plain_offset(ElementE4m3, int64_t c, int64_t r) {
  return c * kRowGroup + r;
}

}  // namespace packed_detail

template <typename Element>
void scatter(const Element& element, std::byte* group, int64_t /*cols*/, int64_t c, int64_t r) {
  std::memcpy(group + packed_detail::plain_offset(element, c, r), &element, sizeof(Element));
}

template <typename Element>
void gather(const std::byte* group, int64_t /*cols*/, int64_t c, int64_t r, Element& element) {
  std::memcpy(&element, group + packed_detail::plain_offset(Element{}, c, r), sizeof(Element));
}

inline void scatter(const BlockQ8_0& block, std::byte* group, int64_t cols, int64_t b, int64_t r) {
  packed_detail::scatter_quads(block.q, 8, group + b * 32 * kRowGroup, r);
  std::memcpy(group + cols * kRowGroup + (b * kRowGroup + r) * 2, &block.d, 2);
}

inline void gather(const std::byte* group, int64_t cols, int64_t b, int64_t r, BlockQ8_0& block) {
  packed_detail::gather_quads(group + b * 32 * kRowGroup, r, 8, block.q);
  std::memcpy(&block.d, group + cols * kRowGroup + (b * kRowGroup + r) * 2, 2);
}

inline void scatter(const BlockQ4_0& block, std::byte* group, int64_t cols, int64_t b, int64_t r) {
  uint8_t codes[32], packed[16];
  for (int j = 0; j < 16; ++j) {
    codes[j] = block.codes[j] & 15;
    codes[j + 16] = block.codes[j] >> 4;
  }
  packed_detail::pair_codes(codes, packed);
  packed_detail::scatter_quads(packed, 4, group + b * 16 * kRowGroup, r);
  std::memcpy(group + cols / 2 * kRowGroup + (b * kRowGroup + r) * 2, &block.d, 2);
}

inline void gather(const std::byte* group, int64_t cols, int64_t b, int64_t r, BlockQ4_0& block) {
  uint8_t codes[32], packed[16];
  packed_detail::gather_quads(group + b * 16 * kRowGroup, r, 4, packed);
  packed_detail::unpair_codes(packed, codes);
  for (int j = 0; j < 16; ++j) block.codes[j] = static_cast<uint8_t>(codes[j] | (codes[j + 16] << 4));
  std::memcpy(&block.d, group + cols / 2 * kRowGroup + (b * kRowGroup + r) * 2, 2);
}

inline void scatter(const BlockQ4_K& block, std::byte* group, int64_t /*cols*/, int64_t b, int64_t r) {
  std::byte* super = group + b * packed_detail::kQ4_KBytes;
  std::memcpy(super + 2 * r, &block.d, 2);
  std::memcpy(super + packed_detail::kQ4_KDmin + 2 * r, &block.dmin, 2);
  for (int i = 0; i < 12; ++i)
    super[packed_detail::kQ4_KScales + i * kRowGroup + r] = static_cast<std::byte>(block.scales[i]);
  for (int sub = 0; sub < BlockQ4_K::kGroups; ++sub) {
    uint8_t codes[32], packed[16];
    for (int i = 0; i < 32; ++i) codes[i] = (block.codes[32 * (sub / 2) + i] >> (4 * (sub % 2))) & 15;
    packed_detail::pair_codes(codes, packed);
    packed_detail::scatter_quads(packed, 4, super + packed_detail::kQ4_KCodes + sub * 16 * kRowGroup, r);
  }
}

inline void gather(const std::byte* group, int64_t /*cols*/, int64_t b, int64_t r, BlockQ4_K& block) {
  const std::byte* super = group + b * packed_detail::kQ4_KBytes;
  std::memcpy(&block.d, super + 2 * r, 2);
  std::memcpy(&block.dmin, super + packed_detail::kQ4_KDmin + 2 * r, 2);
  for (int i = 0; i < 12; ++i)
    block.scales[i] = static_cast<uint8_t>(super[packed_detail::kQ4_KScales + i * kRowGroup + r]);
  for (int pair = 0; pair < 4; ++pair) {
    uint8_t even[32], odd[32], packed[16];
    packed_detail::gather_quads(super + packed_detail::kQ4_KCodes + 2 * pair * 16 * kRowGroup, r, 4, packed);
    packed_detail::unpair_codes(packed, even);
    packed_detail::gather_quads(super + packed_detail::kQ4_KCodes + (2 * pair + 1) * 16 * kRowGroup, r, 4, packed);
    packed_detail::unpair_codes(packed, odd);
    for (int i = 0; i < 32; ++i) block.codes[32 * pair + i] = static_cast<uint8_t>(even[i] | (odd[i] << 4));
  }
}

}  // namespace moraine::quant

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "quant/block_codes.h"
#include "quant/block_formats.h"
#include "quant/grid_formats.h"
#include "quant/packed_matrix.h"

/// Where a block of one row lies inside a packed group of 16 rows (the orders in packed_matrix.h): scatter() puts block
/// number `b` of row `r` into `group`, gather() takes it out again.
namespace moraine::quant {

/// Plain numbers as blocks of one element, so that every type packs the same way.
struct ElementF32 {
  static constexpr int kElements = 1;
  float value;
};
struct ElementF16 {
  static constexpr int kElements = 1;
  uint16_t value;
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

/// GGUF pairs codes far apart in a row in one byte; the packed order pairs columns 4 apart. The low 4 bits of a row's
/// 32 codes ↔ 16 bytes: byte 4i + j has column 8i + j low and column 8i + j + 4 high.
inline void pair_nibbles(const uint8_t codes[32], uint8_t packed[16]) {
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      packed[4 * i + j] = static_cast<uint8_t>((codes[8 * i + j] & 15) | ((codes[8 * i + j + 4] & 15) << 4));
    }
  }
}

inline void unpair_nibbles(const uint8_t packed[16], uint8_t codes[32]) {
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      codes[8 * i + j] = packed[4 * i + j] & 15;
      codes[8 * i + j + 4] = packed[4 * i + j] >> 4;
    }
  }
}

/// Bits `shift` and `shift` + 1 of 32 codes ↔ 8 bytes: bits 2p and 2p + 1 of byte 4q + j are column 16q + 4p + j's.
inline void pair_twos(const uint8_t codes[32], int shift, uint8_t packed[8]) {
  for (int i = 0; i < 8; ++i) packed[i] = 0;
  for (int c = 0; c < 32; ++c) {
    uint8_t& byte = packed[c / 16 * 4 + c % 4];
    byte = static_cast<uint8_t>(byte | (((codes[c] >> shift) & 3) << (c % 16 / 4 * 2)));
  }
}

inline void add_twos(const uint8_t packed[8], int shift, uint8_t codes[32]) {
  for (int c = 0; c < 32; ++c) {
    const int two = (packed[c / 16 * 4 + c % 4] >> (c % 16 / 4 * 2)) & 3;
    codes[c] = static_cast<uint8_t>(codes[c] | (two << shift));
  }
}

/// Bit `shift` of 32 codes ↔ 4 bytes: bit i of byte j is column 4i + j's.
inline void pair_ones(const uint8_t codes[32], int shift, uint8_t packed[4]) {
  for (int i = 0; i < 4; ++i) packed[i] = 0;
  for (int c = 0; c < 32; ++c) {
    packed[c % 4] = static_cast<uint8_t>(packed[c % 4] | (((codes[c] >> shift) & 1) << (c / 4)));
  }
}

inline void add_ones(const uint8_t packed[4], int shift, uint8_t codes[32]) {
  for (int c = 0; c < 32; ++c) codes[c] = static_cast<uint8_t>(codes[c] | (((packed[c % 4] >> (c / 4)) & 1) << shift));
}

/// The bits of a format's codes: four together if kNibble, above them two together, above them one.
struct CodeBits {
  bool nibble, two, one;

  constexpr int two_shift() const { return nibble ? 4 : 0; }
  constexpr int one_shift() const { return two_shift() + (two ? 2 : 0); }
  /// Bytes of a row's 32 codes.
  constexpr int64_t row_bytes() const { return (nibble ? 16 : 0) + (two ? 8 : 0) + (one ? 4 : 0); }
};

/// 32 codes of row r ↔ quads at `base`.
inline void scatter_codes(CodeBits bits, const uint8_t codes[32], std::byte* base, int64_t r) {
  uint8_t packed[28];
  uint8_t* next = packed;
  if (bits.nibble) {
    pair_nibbles(codes, next);
    next += 16;
  }
  if (bits.two) {
    pair_twos(codes, bits.two_shift(), next);
    next += 8;
  }
  if (bits.one) pair_ones(codes, bits.one_shift(), next);
  scatter_quads(packed, static_cast<int>(bits.row_bytes() / 4), base, r);
}

inline void gather_codes(CodeBits bits, const std::byte* base, int64_t r, uint8_t codes[32]) {
  uint8_t packed[28];
  gather_quads(base, r, static_cast<int>(bits.row_bytes() / 4), packed);
  const uint8_t* next = packed;
  std::memset(codes, 0, 32);
  if (bits.nibble) {
    unpair_nibbles(next, codes);
    next += 16;
  }
  if (bits.two) {
    add_twos(next, bits.two_shift(), codes);
    next += 8;
  }
  if (bits.one) add_ones(next, bits.one_shift(), codes);
}

/// Bytes of a row ↔ [count][16 rows].
inline void scatter_bytes(const void* bytes, int count, std::byte* base, int64_t r) {
  for (int i = 0; i < count; ++i) base[i * kRowGroup + r] = static_cast<const std::byte*>(bytes)[i];
}

inline void gather_bytes(const std::byte* base, int64_t r, int count, void* bytes) {
  for (int i = 0; i < count; ++i) static_cast<std::byte*>(bytes)[i] = base[i * kRowGroup + r];
}

/// A 16-bit number of row r ↔ [16 rows].
inline void scatter_half(uint16_t half, std::byte* base, int64_t r) {
  std::memcpy(base + 2 * r, &half, 2);
}

inline uint16_t gather_half(const std::byte* base, int64_t r) {
  uint16_t half;
  std::memcpy(&half, base + 2 * r, 2);
  return half;
}

constexpr int64_t kHalves = 2 * kRowGroup;  // bytes of one 16-bit number per row

/// Formats of 32 columns, in a group: the codes of all blocks, then their scales: d, or d and m.
constexpr CodeBits bits_of(const BlockQ4_0&) {
  return {.nibble = true, .two = false, .one = false};
}
constexpr CodeBits bits_of(const BlockQ4_1&) {
  return {.nibble = true, .two = false, .one = false};
}
constexpr CodeBits bits_of(const BlockIQ4_NL&) {
  return {.nibble = true, .two = false, .one = false};
}
constexpr CodeBits bits_of(const BlockQ5_0&) {
  return {.nibble = true, .two = false, .one = true};
}
constexpr CodeBits bits_of(const BlockQ5_1&) {
  return {.nibble = true, .two = false, .one = true};
}

/// Formats of 256 columns: super-blocks of 16 rows, one after the other: what precedes the codes (of `before` bytes per
/// row), then the codes of 8 × 32 columns. `d_at_end`: the f16 d of all super-blocks follow after the last one, so that
/// super-blocks start at multiples of 64.
struct SuperOrder {
  CodeBits bits;
  int64_t before;
  bool d_at_end;

  constexpr int64_t header_bytes() const { return before * kRowGroup; }
  constexpr int64_t code_bytes() const { return bits.row_bytes() * kRowGroup; }
  constexpr int64_t super_bytes() const { return header_bytes() + 8 * code_bytes(); }
};

constexpr SuperOrder kQ2_K = {.bits = {.nibble = false, .two = true, .one = false}, .before = 20, .d_at_end = false};
constexpr SuperOrder kQ3_K = {.bits = {.nibble = false, .two = true, .one = true}, .before = 12, .d_at_end = true};
constexpr SuperOrder kQ4_K = {.bits = {.nibble = true, .two = false, .one = false}, .before = 16, .d_at_end = false};
constexpr SuperOrder kQ5_K = {.bits = {.nibble = true, .two = false, .one = true}, .before = 16, .d_at_end = false};
constexpr SuperOrder kQ6_K = {.bits = {.nibble = true, .two = true, .one = false}, .before = 16, .d_at_end = true};
constexpr SuperOrder kIq4_XS = {.bits = {.nibble = true, .two = false, .one = false}, .before = 8, .d_at_end = false};
static_assert(kQ2_K.super_bytes() == 16 * static_cast<int64_t>(sizeof(BlockQ2_K)));
static_assert(kQ3_K.super_bytes() + kHalves == 16 * static_cast<int64_t>(sizeof(BlockQ3_K)));
static_assert(kQ4_K.super_bytes() == 16 * static_cast<int64_t>(sizeof(BlockQ4_K)));
static_assert(kQ5_K.super_bytes() == 16 * static_cast<int64_t>(sizeof(BlockQ5_K)));
static_assert(kQ6_K.super_bytes() + kHalves == 16 * static_cast<int64_t>(sizeof(BlockQ6_K)));
static_assert(kIq4_XS.super_bytes() == 16 * static_cast<int64_t>(sizeof(BlockIQ4_XS)));

constexpr SuperOrder order_of(const BlockQ2_K&) {
  return kQ2_K;
}
constexpr SuperOrder order_of(const BlockQ3_K&) {
  return kQ3_K;
}
constexpr SuperOrder order_of(const BlockQ4_K&) {
  return kQ4_K;
}
constexpr SuperOrder order_of(const BlockQ5_K&) {
  return kQ5_K;
}
constexpr SuperOrder order_of(const BlockQ6_K&) {
  return kQ6_K;
}
constexpr SuperOrder order_of(const BlockIQ4_XS&) {
  return kIq4_XS;
}

/// What precedes the codes, and the d at the end. `header` is the super-block's first byte.
inline void scatter_header(const BlockQ2_K& block, std::byte* header, std::byte* /*d_at_end*/, int64_t r) {
  scatter_half(block.d, header, r);
  scatter_half(block.dmin, header + kHalves, r);
  scatter_bytes(block.scales, 16, header + 2 * kHalves, r);
}
inline void gather_header(const std::byte* header, const std::byte* /*d_at_end*/, int64_t r, BlockQ2_K& block) {
  block.d = gather_half(header, r);
  block.dmin = gather_half(header + kHalves, r);
  gather_bytes(header + 2 * kHalves, r, 16, block.scales);
}

inline void scatter_header(const BlockQ3_K& block, std::byte* header, std::byte* d_at_end, int64_t r) {
  scatter_half(block.d, d_at_end, r);
  scatter_bytes(block.scales, 12, header, r);
}
inline void gather_header(const std::byte* header, const std::byte* d_at_end, int64_t r, BlockQ3_K& block) {
  block.d = gather_half(d_at_end, r);
  gather_bytes(header, r, 12, block.scales);
}

inline void scatter_header(const BlockQ6_K& block, std::byte* header, std::byte* d_at_end, int64_t r) {
  scatter_half(block.d, d_at_end, r);
  scatter_bytes(block.scales, 16, header, r);
}
inline void gather_header(const std::byte* header, const std::byte* d_at_end, int64_t r, BlockQ6_K& block) {
  block.d = gather_half(d_at_end, r);
  gather_bytes(header, r, 16, block.scales);
}

inline void scatter_header(const BlockIQ4_XS& block, std::byte* header, std::byte* /*d_at_end*/, int64_t r) {
  scatter_half(block.d, header, r);
  scatter_bytes(&block.scales_high, 2, header + kHalves, r);
  scatter_bytes(block.scales_low, 4, header + 2 * kHalves, r);
}
inline void gather_header(const std::byte* header, const std::byte* /*d_at_end*/, int64_t r, BlockIQ4_XS& block) {
  block.d = gather_half(header, r);
  gather_bytes(header + kHalves, r, 2, &block.scales_high);
  gather_bytes(header + 2 * kHalves, r, 4, block.scales_low);
}

/// Q4_K and Q5_K.
template <typename Block>
void scatter_header(const Block& block, std::byte* header, std::byte* /*d_at_end*/, int64_t r) {
  scatter_half(block.d, header, r);
  scatter_half(block.dmin, header + kHalves, r);
  scatter_bytes(block.scales, 12, header + 2 * kHalves, r);
}
template <typename Block>
void gather_header(const std::byte* header, const std::byte* /*d_at_end*/, int64_t r, Block& block) {
  block.d = gather_half(header, r);
  block.dmin = gather_half(header + kHalves, r);
  gather_bytes(header + 2 * kHalves, r, 12, block.scales);
}

template <typename Block>
concept HasOffset = requires(Block block) {
  block.m;
};

constexpr int64_t plain_offset(ElementF32, int64_t c, int64_t r) {
  return (c * kRowGroup + r) * 4;
}
constexpr int64_t plain_offset(ElementF16, int64_t c, int64_t r) {
  return (c * kRowGroup + r) * 2;
}
constexpr int64_t plain_offset(ElementBf16, int64_t c, int64_t r) {
  return (c / 2 * kRowGroup + r) * 4 + c % 2 * 2;
}
constexpr int64_t plain_offset(ElementE4m3, int64_t c, int64_t r) {
  return c * kRowGroup + r;
}

}  // namespace packed_detail

template <typename Element>
requires(Element::kElements == 1) void scatter(const Element& element, std::byte* group, int64_t /*cols*/, int64_t c,
                                               int64_t r) {
  std::memcpy(group + packed_detail::plain_offset(element, c, r), &element, sizeof(Element));
}

template <typename Element>
requires(Element::kElements == 1) void gather(const std::byte* group, int64_t /*cols*/, int64_t c, int64_t r,
                                              Element& element) {
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

/// Formats of 32 columns with codes.
template <typename Block>
requires(Block::kElements == 32) void scatter(const Block& block, std::byte* group, int64_t cols, int64_t b,
                                              int64_t r) {
  constexpr packed_detail::CodeBits kBits = packed_detail::bits_of(Block{});
  constexpr int64_t kScales = packed_detail::HasOffset<Block> ? 2 : 1;
  uint8_t codes[32];
  read_codes(block, codes);
  packed_detail::scatter_codes(kBits, codes, group + b * kBits.row_bytes() * kRowGroup, r);
  std::byte* scales = group + (cols / 32 * kBits.row_bytes() * kRowGroup + b * kScales * packed_detail::kHalves);
  packed_detail::scatter_half(block.d, scales, r);
  if constexpr (packed_detail::HasOffset<Block>)
    packed_detail::scatter_half(block.m, scales + packed_detail::kHalves, r);
}

template <typename Block>
requires(Block::kElements == 32) void gather(const std::byte* group, int64_t cols, int64_t b, int64_t r, Block& block) {
  constexpr packed_detail::CodeBits kBits = packed_detail::bits_of(Block{});
  constexpr int64_t kScales = packed_detail::HasOffset<Block> ? 2 : 1;
  uint8_t codes[32];
  packed_detail::gather_codes(kBits, group + b * kBits.row_bytes() * kRowGroup, r, codes);
  write_codes(codes, block);
  const std::byte* scales = group + (cols / 32 * kBits.row_bytes() * kRowGroup + b * kScales * packed_detail::kHalves);
  block.d = packed_detail::gather_half(scales, r);
  if constexpr (packed_detail::HasOffset<Block>)
    block.m = packed_detail::gather_half(scales + packed_detail::kHalves, r);
}

/// Formats of 256 columns with codes.
template <typename Block>
requires(Block::kElements == 256 && !IsGridFormat<Block>) void scatter(const Block& block, std::byte* group,
                                                                       int64_t cols, int64_t b, int64_t r) {
  constexpr packed_detail::SuperOrder kOrder = packed_detail::order_of(Block{});
  std::byte* super = group + b * kOrder.super_bytes();
  packed_detail::scatter_header(block, super, group + cols / 256 * kOrder.super_bytes() + b * packed_detail::kHalves,
                                r);
  uint8_t codes[256];
  read_codes(block, codes);
  for (int i = 0; i < 8; ++i) {
    packed_detail::scatter_codes(kOrder.bits, codes + 32 * i, super + kOrder.header_bytes() + i * kOrder.code_bytes(),
                                 r);
  }
}

template <typename Block>
requires(Block::kElements == 256 && !IsGridFormat<Block>) void gather(const std::byte* group, int64_t cols, int64_t b,
                                                                      int64_t r, Block& block) {
  constexpr packed_detail::SuperOrder kOrder = packed_detail::order_of(Block{});
  const std::byte* super = group + b * kOrder.super_bytes();
  packed_detail::gather_header(super, group + cols / 256 * kOrder.super_bytes() + b * packed_detail::kHalves, r, block);
  uint8_t codes[256];
  for (int i = 0; i < 8; ++i) {
    packed_detail::gather_codes(kOrder.bits, super + kOrder.header_bytes() + i * kOrder.code_bytes(), r,
                                codes + 32 * i);
  }
  write_codes(codes, block);
}

/// The grid formats, whose codes are looked up row by row: [cols/256][16 rows] blocks as they are.
template <typename Block>
requires(IsGridFormat<Block>) void scatter(const Block& block, std::byte* group, int64_t /*cols*/, int64_t b,
                                           int64_t r) {
  std::memcpy(group + (b * kRowGroup + r) * static_cast<int64_t>(sizeof(Block)), &block, sizeof(Block));
}

template <typename Block>
requires(IsGridFormat<Block>) void gather(const std::byte* group, int64_t /*cols*/, int64_t b, int64_t r,
                                          Block& block) {
  std::memcpy(&block, group + (b * kRowGroup + r) * static_cast<int64_t>(sizeof(Block)), sizeof(Block));
}

}  // namespace moraine::quant

#pragma once

#include <cstdint>

#include "quant/block_formats.h"

/// The codes of a block in the order of its columns, one per byte, whatever bits of which bytes GGUF keeps them in:
/// read_codes() takes them out, write_codes() puts them back, clearing nothing else.
namespace moraine::quant {

namespace block_codes_detail {

/// Two codes per byte: columns `half` apart share one, run after run of 2 · half columns.
constexpr void read_nibbles(const uint8_t* bytes, int count, int half, uint8_t* codes) {
  for (int i = 0; i < count; ++i) {
    codes[i] = (bytes[i / (2 * half) * half + i % half] >> (i / half % 2 * 4)) & 15;
  }
}

constexpr void write_nibbles(const uint8_t* codes, int count, int half, uint8_t* bytes) {
  for (int i = 0; i < count / 2; ++i) {
    const uint8_t* low = codes + i / half * 2 * half + i % half;
    bytes[i] = static_cast<uint8_t>((low[0] & 15) | ((low[half] & 15) << 4));
  }
}

/// Bits `shift` and `shift` + 1 of 256 codes, four columns 32 apart in a byte.
constexpr void add_pairs(const uint8_t bytes[64], int shift, uint8_t codes[256]) {
  for (int i = 0; i < 256; ++i) {
    const int pair = (bytes[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2)) & 3;
    codes[i] = static_cast<uint8_t>(codes[i] | (pair << shift));
  }
}

constexpr void write_pairs(const uint8_t codes[256], int shift, uint8_t bytes[64]) {
  for (int i = 0; i < 64; ++i) bytes[i] = 0;
  for (int i = 0; i < 256; ++i) {
    uint8_t& byte = bytes[i / 128 * 32 + i % 32];
    byte = static_cast<uint8_t>(byte | (((codes[i] >> shift) & 3) << (i / 32 % 4 * 2)));
  }
}

/// Bit `shift` of 256 codes, eight columns 32 apart in a byte.
constexpr void add_bits(const uint8_t bytes[32], int shift, uint8_t codes[256]) {
  for (int i = 0; i < 256; ++i)
    codes[i] = static_cast<uint8_t>(codes[i] | (((bytes[i % 32] >> (i / 32)) & 1) << shift));
}

constexpr void write_bits(const uint8_t codes[256], int shift, uint8_t bytes[32]) {
  for (int i = 0; i < 32; ++i) bytes[i] = 0;
  for (int i = 0; i < 256; ++i) {
    bytes[i % 32] = static_cast<uint8_t>(bytes[i % 32] | (((codes[i] >> shift) & 1) << (i / 32)));
  }
}

/// The fifth bits of 32 codes, one after the other.
constexpr void add_fifth_bits(const uint8_t bytes[4], uint8_t codes[32]) {
  for (int i = 0; i < 32; ++i) codes[i] = static_cast<uint8_t>(codes[i] | (((bytes[i / 8] >> (i % 8)) & 1) << 4));
}

constexpr void write_fifth_bits(const uint8_t codes[32], uint8_t bytes[4]) {
  for (int i = 0; i < 4; ++i) bytes[i] = 0;
  for (int i = 0; i < 32; ++i) bytes[i / 8] = static_cast<uint8_t>(bytes[i / 8] | (((codes[i] >> 4) & 1) << (i % 8)));
}

}  // namespace block_codes_detail

/// Q4_0, Q4_1, IQ4_NL: 32 codes of 4 bits; Q5_0, Q5_1: of 5.
template <typename Block>
constexpr void read_codes(const Block& block, uint8_t* codes) {
  block_codes_detail::read_nibbles(block.codes, 32, 16, codes);
  if constexpr (requires { block.high; }) block_codes_detail::add_fifth_bits(block.high, codes);
}
template <typename Block>
constexpr void write_codes(const uint8_t* codes, Block& block) {
  block_codes_detail::write_nibbles(codes, 32, 16, block.codes);
  if constexpr (requires { block.high; }) block_codes_detail::write_fifth_bits(codes, block.high);
}

constexpr void read_codes(const BlockQ2_K& block, uint8_t* codes) {
  for (int i = 0; i < 256; ++i) codes[i] = 0;
  block_codes_detail::add_pairs(block.codes, 0, codes);
}
constexpr void write_codes(const uint8_t* codes, BlockQ2_K& block) {
  block_codes_detail::write_pairs(codes, 0, block.codes);
}

constexpr void read_codes(const BlockQ3_K& block, uint8_t* codes) {
  for (int i = 0; i < 256; ++i) codes[i] = 0;
  block_codes_detail::add_pairs(block.codes, 0, codes);
  block_codes_detail::add_bits(block.high, 2, codes);
}
constexpr void write_codes(const uint8_t* codes, BlockQ3_K& block) {
  block_codes_detail::write_pairs(codes, 0, block.codes);
  block_codes_detail::write_bits(codes, 2, block.high);
}

constexpr void read_codes(const BlockQ4_K& block, uint8_t* codes) {
  block_codes_detail::read_nibbles(block.codes, 256, 32, codes);
}
constexpr void write_codes(const uint8_t* codes, BlockQ4_K& block) {
  block_codes_detail::write_nibbles(codes, 256, 32, block.codes);
}

constexpr void read_codes(const BlockQ5_K& block, uint8_t* codes) {
  block_codes_detail::read_nibbles(block.codes, 256, 32, codes);
  block_codes_detail::add_bits(block.high, 4, codes);
}
constexpr void write_codes(const uint8_t* codes, BlockQ5_K& block) {
  block_codes_detail::write_nibbles(codes, 256, 32, block.codes);
  block_codes_detail::write_bits(codes, 4, block.high);
}

constexpr void read_codes(const BlockQ6_K& block, uint8_t* codes) {
  block_codes_detail::read_nibbles(block.codes, 256, 64, codes);
  block_codes_detail::add_pairs(block.high, 4, codes);
}
constexpr void write_codes(const uint8_t* codes, BlockQ6_K& block) {
  block_codes_detail::write_nibbles(codes, 256, 64, block.codes);
  block_codes_detail::write_pairs(codes, 4, block.high);
}

constexpr void read_codes(const BlockIQ4_XS& block, uint8_t* codes) {
  block_codes_detail::read_nibbles(block.codes, 256, 16, codes);
}
constexpr void write_codes(const uint8_t* codes, BlockIQ4_XS& block) {
  block_codes_detail::write_nibbles(codes, 256, 16, block.codes);
}

}  // namespace moraine::quant

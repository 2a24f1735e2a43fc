#pragma once

#include <cstdint>

/// The block formats of GGUF, byte for byte (llama.cpp's "quants"; facts in docs/weight_formats.md). A row of a matrix
/// is a plain sequence of blocks. Multi-byte fields are little-endian; f16 is IEEE half precision.
namespace moraine::quant {

/// Q8_0: 8.5 bits per weight. Group: 32 weights. Scale: one f16.
/// Range: q in −127…127 as written here (a file may hold −128). Meaning: weight[i] = d·q[i].
/// Bytes: 0 d, 2…33 q[32].
struct BlockQ8_0 {
  static constexpr int kElements = 32;
  uint16_t d;    ///< f16 scale
  int8_t q[32];  ///< [column]
};
static_assert(sizeof(BlockQ8_0) == 34 && alignof(BlockQ8_0) == 2);

/// Q4_0: 4.5 bits per weight. Group: 32 weights. Scale: one f16, of either sign.
/// Range: 4-bit codes 0…15 that stand for −8…7. Meaning: weight[i] = d·(code − 8).
/// Bytes: 0 d, 2…17 codes; byte j holds column j in its low nibble and column j + 16 in its high nibble.
struct BlockQ4_0 {
  static constexpr int kElements = 32;
  uint16_t d;         ///< f16 scale
  uint8_t codes[16];  ///< two per byte
};
static_assert(sizeof(BlockQ4_0) == 18 && alignof(BlockQ4_0) == 2);

/// Q4_K: 4.5 bits per weight. Super-block: 256 weights in 8 groups of 32. Scales: per group a 6-bit scale and a 6-bit
/// minimum, in units of the super-block's f16 d and dmin.
/// Range: 4-bit codes 0…15. Meaning, in group b: weight[i] = (d·scale[b])·code − (dmin·min[b]).
/// Bytes: 0 d, 2 dmin, 4…15 packed scales and minima, 16…143 codes. Byte 32·(b/2) + i of the codes has weight i of
/// group b in its low nibble if b is even, in its high nibble if b is odd. q4_k_scale_min() knows the packing of the 12
/// bytes.
struct BlockQ4_K {
  static constexpr int kElements = 256;
  static constexpr int kGroups = 8;
  static constexpr int kGroupElements = 32;
  uint16_t d;          ///< f16 unit of the scales
  uint16_t dmin;       ///< f16 unit of the minima
  uint8_t scales[12];  ///< 8 scales and 8 minima of 6 bits
  uint8_t codes[128];  ///< two per byte
};
static_assert(sizeof(BlockQ4_K) == 144 && alignof(BlockQ4_K) == 2);

/// A Q4_K group's 6-bit numbers.
struct ScaleMin {
  uint8_t scale;
  uint8_t min;
};

/// Group `b` (0…7) of a Q4_K block's 12 bytes: groups 0–3 keep their scale in the low 6 bits of bytes 0–3 and their
/// minimum in those of bytes 4–7; groups 4–7 keep the low 4 bits of both in bytes 8–11 and the high 2 in the spare bits
/// of bytes 0–7.
constexpr ScaleMin q4_k_scale_min(const uint8_t scales[12], int b) {
  if (b < 4) return {static_cast<uint8_t>(scales[b] & 63), static_cast<uint8_t>(scales[b + 4] & 63)};
  return {static_cast<uint8_t>((scales[b + 4] & 15) | ((scales[b - 4] >> 6) << 4)),
          static_cast<uint8_t>((scales[b + 4] >> 4) | ((scales[b] >> 6) << 4))};
}

/// The inverse of q4_k_scale_min for all groups.
constexpr void q4_k_store_scale_mins(const ScaleMin groups[8], uint8_t scales[12]) {
  for (int b = 0; b < 4; ++b) {
    const ScaleMin low = groups[b];
    const ScaleMin high = groups[b + 4];
    scales[b] = static_cast<uint8_t>(low.scale | ((high.scale >> 4) << 6));
    scales[b + 4] = static_cast<uint8_t>(low.min | ((high.min >> 4) << 6));
    scales[b + 8] = static_cast<uint8_t>((high.scale & 15) | ((high.min & 15) << 4));
  }
}

}  // namespace moraine::quant

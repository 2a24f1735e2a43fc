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

/// Q4_1: 5 bits per weight. Group: 32 weights. Scale d and offset m: f16.
/// Range: 4-bit codes 0…15. Meaning: weight[i] = d·code + m.
/// Bytes: 0 d, 2 m, 4…19 codes as in Q4_0.
struct BlockQ4_1 {
  static constexpr int kElements = 32;
  uint16_t d;         ///< f16 scale
  uint16_t m;         ///< f16 offset
  uint8_t codes[16];  ///< two per byte
};
static_assert(sizeof(BlockQ4_1) == 20 && alignof(BlockQ4_1) == 2);

/// Q5_0: 5.5 bits per weight. Group: 32 weights. Scale: one f16, of either sign.
/// Range: 5-bit codes 0…31 that stand for −16…15. Meaning: weight[i] = d·(code − 16).
/// Bytes: 0 d, 2…5 fifth bits (bit i of the little-endian number: column i), 6…21 low four bits as in Q4_0.
struct BlockQ5_0 {
  static constexpr int kElements = 32;
  uint16_t d;         ///< f16 scale
  uint8_t high[4];    ///< bit 4 of every code
  uint8_t codes[16];  ///< bits 0…3, two per byte
};
static_assert(sizeof(BlockQ5_0) == 22 && alignof(BlockQ5_0) == 2);

/// Q5_1: 6 bits per weight. Group: 32 weights. Scale d and offset m: f16.
/// Range: 5-bit codes 0…31. Meaning: weight[i] = d·code + m.
/// Bytes: 0 d, 2 m, 4…7 fifth bits, 8…23 low four bits, both as in Q5_0.
struct BlockQ5_1 {
  static constexpr int kElements = 32;
  uint16_t d;         ///< f16 scale
  uint16_t m;         ///< f16 offset
  uint8_t high[4];    ///< bit 4 of every code
  uint8_t codes[16];  ///< bits 0…3, two per byte
};
static_assert(sizeof(BlockQ5_1) == 24 && alignof(BlockQ5_1) == 2);

/// What the 4-bit codes of IQ4_NL and IQ4_XS stand for: steps that widen away from zero, as weights thin out there.
constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/// IQ4_NL: 4.5 bits per weight. Group: 32 weights. Scale: one f16, of either sign.
/// Range: 4-bit codes into kIq4Values. Meaning: weight[i] = d·kIq4Values[code].
/// Bytes: 0 d, 2…17 codes as in Q4_0.
struct BlockIQ4_NL {
  static constexpr int kElements = 32;
  uint16_t d;         ///< f16 scale
  uint8_t codes[16];  ///< two per byte
};
static_assert(sizeof(BlockIQ4_NL) == 18 && alignof(BlockIQ4_NL) == 2);

/// Q2_K: 2.625 bits per weight. Super-block: 256 weights in 16 groups of 16. Scales: per group a 4-bit scale and a
/// 4-bit minimum, in units of the super-block's f16 d and dmin. Range: 2-bit codes 0…3. Meaning, in group g: weight[i]
/// = (d·scale[g])·code − (dmin·min[g]). Bytes: 0…15 scale (low nibble) and minimum (high nibble) of each group, 16…79
/// codes, 80 d, 82 dmin. Byte 32·n + l of the codes has columns 128·n + 32·j + l, j = 0…3, in bits 2·j and 2·j + 1.
struct BlockQ2_K {
  static constexpr int kElements = 256;
  uint8_t scales[16];  ///< scale | minimum << 4
  uint8_t codes[64];   ///< four per byte
  uint16_t d;          ///< f16 unit of the scales
  uint16_t dmin;       ///< f16 unit of the minima
};
static_assert(sizeof(BlockQ2_K) == 84 && alignof(BlockQ2_K) == 2);

/// Q3_K: 3.4375 bits per weight. Super-block: 256 weights in 16 groups of 16. Scales: 6 bits per group, in units of the
/// super-block's f16 d.
/// Range: 3-bit codes 0…7 that stand for −4…3; scales 0…63 that stand for −32…31.
/// Meaning, in group g: weight[i] = (d·(scale[g] − 32))·(code − 4).
/// Bytes: 0…31 third bits: bit 4·n + j of byte l for column 128·n + 32·j + l; 32…95 low two bits as in Q2_K; 96…107
/// scales, packed (q3_k_scale()); 108 d.
struct BlockQ3_K {
  static constexpr int kElements = 256;
  uint8_t high[32];    ///< bit 2 of every code
  uint8_t codes[64];   ///< bits 0 and 1, four per byte
  uint8_t scales[12];  ///< 16 scales of 6 bits
  uint16_t d;          ///< f16 unit of the scales
};
static_assert(sizeof(BlockQ3_K) == 110 && alignof(BlockQ3_K) == 2);

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

/// Q5_K: 5.5 bits per weight. Super-block, groups and scales as in Q4_K.
/// Range: 5-bit codes 0…31. Meaning, in group b: weight[i] = (d·scale[b])·code − (dmin·min[b]).
/// Bytes: 0 d, 2 dmin, 4…15 scales and minima as in Q4_K, 16…47 fifth bits: bit b of byte i for weight i of group b;
/// 48…175 low four bits as in Q4_K.
struct BlockQ5_K {
  static constexpr int kElements = 256;
  uint16_t d;          ///< f16 unit of the scales
  uint16_t dmin;       ///< f16 unit of the minima
  uint8_t scales[12];  ///< 8 scales and 8 minima of 6 bits
  uint8_t high[32];    ///< bit 4 of every code
  uint8_t codes[128];  ///< bits 0…3, two per byte
};
static_assert(sizeof(BlockQ5_K) == 176 && alignof(BlockQ5_K) == 2);

/// Q6_K: 6.5625 bits per weight. Super-block: 256 weights in 16 groups of 16. Scales: an int8 per group, in units of
/// the super-block's f16 d. Range: 6-bit codes 0…63 that stand for −32…31. Meaning, in group g: weight[i] =
/// (d·scale[g])·(code − 32). Bytes: 0…127 low four bits: byte 64·n + l has columns 128·n + l (low nibble) and 128·n + l
/// + 64 (high nibble), l = 0…63; 128…191 high two bits as Q2_K's codes; 192…207 scales; 208 d.
struct BlockQ6_K {
  static constexpr int kElements = 256;
  uint8_t codes[128];  ///< bits 0…3, two per byte
  uint8_t high[64];    ///< bits 4 and 5, four per byte
  int8_t scales[16];
  uint16_t d;  ///< f16 unit of the scales
};
static_assert(sizeof(BlockQ6_K) == 210 && alignof(BlockQ6_K) == 2);

/// IQ4_XS: 4.25 bits per weight. Super-block: 256 weights in 8 groups of 32. Scales: 6 bits per group, in units of the
/// super-block's f16 d.
/// Range: 4-bit codes into kIq4Values; scales 0…63 that stand for −32…31.
/// Meaning, in group b: weight[i] = (d·(scale[b] − 32))·kIq4Values[code].
/// Bytes: 0 d, 2 high two bits of the scales (bits 2·b, 2·b + 1 of the little-endian number), 4…7 their low four bits
/// (byte b/2, low nibble for even b), 8…135 codes: 16 bytes per group, each as in Q4_0.
struct BlockIQ4_XS {
  static constexpr int kElements = 256;
  uint16_t d;            ///< f16 unit of the scales
  uint16_t scales_high;  ///< two bits each
  uint8_t scales_low[4];
  uint8_t codes[128];  ///< two per byte
};
static_assert(sizeof(BlockIQ4_XS) == 136 && alignof(BlockIQ4_XS) == 2);

/// A group's 6-bit numbers in Q4_K and Q5_K, 4-bit numbers in Q2_K.
struct ScaleMin {
  uint8_t scale;
  uint8_t min;
};

/// Group `b` (0…7) of a Q4_K or Q5_K block's 12 bytes: groups 0–3 keep their scale in the low 6 bits of bytes 0–3 and
/// their minimum in those of bytes 4–7; groups 4–7 keep the low 4 bits of both in bytes 8–11 and the high 2 in the
/// spare bits of bytes 0–7.
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

/// Scale `g` (0…15) of Q3_K's 12 bytes: the low 4 bits are nibbles of bytes 0–7 (groups 8–15 in the high ones), the
/// high 2 bits in bytes 8–11: byte 8 + g mod 4, from bit 2·(g/4).
constexpr uint8_t q3_k_scale(const uint8_t scales[12], int g) {
  const int low = g < 8 ? scales[g] & 15 : scales[g - 8] >> 4;
  return static_cast<uint8_t>(low | (((scales[8 + g % 4] >> (2 * (g / 4))) & 3) << 4));
}

/// The inverse of q3_k_scale for all groups.
constexpr void q3_k_store_scales(const uint8_t groups[16], uint8_t scales[12]) {
  for (int i = 0; i < 8; ++i) scales[i] = static_cast<uint8_t>((groups[i] & 15) | ((groups[i + 8] & 15) << 4));
  for (int i = 0; i < 4; ++i) {
    scales[8 + i] = static_cast<uint8_t>((groups[i] >> 4) | ((groups[i + 4] >> 4) << 2) | ((groups[i + 8] >> 4) << 4) |
                                         ((groups[i + 12] >> 4) << 6));
  }
}

/// Scale `b` (0…7) of an IQ4_XS block.
constexpr uint8_t iq4_xs_scale(const BlockIQ4_XS& block, int b) {
  const int low = (block.scales_low[b / 2] >> (4 * (b % 2))) & 15;
  return static_cast<uint8_t>(low | (((block.scales_high >> (2 * b)) & 3) << 4));
}

/// The inverse of iq4_xs_scale for all groups.
constexpr void iq4_xs_store_scales(const uint8_t groups[8], BlockIQ4_XS& block) {
  int high = 0;
  for (int b = 0; b < 8; ++b) high |= (groups[b] >> 4) << (2 * b);
  block.scales_high = static_cast<uint16_t>(high);
  for (int i = 0; i < 4; ++i) {
    block.scales_low[i] = static_cast<uint8_t>((groups[2 * i] & 15) | ((groups[2 * i + 1] & 15) << 4));
  }
}

}  // namespace moraine::quant

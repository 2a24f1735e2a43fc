#pragma once

#include <concepts>
#include <cstdint>

/// GGUF's formats below 3.5 bits whose weights come eight (or four) at a time out of a table: a code chooses a row of a
/// grid (quant/iq_grids.h), other bits give the signs. Byte for byte as in files; multi-byte fields are little-endian,
/// f16 is IEEE half precision. All have super-blocks of 256 weights, seen here as 32 octets or 64 quads.
namespace moraine::quant {

/// IQ3_XXS: 3.0625 bits. Scale: 4 bits per 32 weights. Grid: 256 quads, values 4 … 62.
/// Meaning: (d·(0.5 + scale)·0.5)·(±grid value). Bytes: 0 d, 2…65 one grid row per quad, 66…97 a 32-bit number per 32
/// weights: 7 bits of signs per octet (even_signs()), scale in the top 4 bits.
struct BlockIQ3_XXS {
  static constexpr int kElements = 256;
  uint16_t d;
  uint8_t rows[64];
  uint8_t signs_scale[8][4];
};
static_assert(sizeof(BlockIQ3_XXS) == 98 && alignof(BlockIQ3_XXS) == 2);

/// IQ3_S: 3.4375 bits. Scale: 4 bits per 32 weights. Grid: 512 quads, odd values 1 … 15.
/// Meaning: (d·(1 + 2·scale))·(±grid value). Bytes: 0 d, 2…65 low 8 bits of each quad's row, 66…73 ninth bits, 74…105
/// one sign bit per weight, 106…109 scales, two per byte.
struct BlockIQ3_S {
  static constexpr int kElements = 256;
  uint16_t d;
  uint8_t rows[64];
  uint8_t rows_high[8];
  uint8_t signs[32];
  uint8_t scales[4];
};
static_assert(sizeof(BlockIQ3_S) == 110 && alignof(BlockIQ3_S) == 2);

/// IQ2_XXS: 2.0625 bits. Scale: 4 bits per 32 weights. Grid: 256 octets, values 8, 25, 43.
/// Meaning: (d·(0.5 + scale)·0.25)·(±grid value). Bytes: 0 d, then per 32 weights 4 grid rows and a 32-bit number as in
/// IQ3_XXS.
struct BlockIQ2_XXS {
  static constexpr int kElements = 256;
  struct Group {
    uint8_t rows[4];
    uint8_t signs_scale[4];
  };
  uint16_t d;
  Group groups[8];
};
static_assert(sizeof(BlockIQ2_XXS) == 66 && alignof(BlockIQ2_XXS) == 2);

/// IQ2_XS: 2.3125 bits. Scale: 4 bits per 16 weights. Grid: 512 octets, values 8, 25, 43. Meaning as IQ2_XXS.
/// Bytes: 0 d, 2…65 per octet 9 bits of grid row and 7 bits of signs (even_signs()), 66…73 scales, two per byte.
struct BlockIQ2_XS {
  static constexpr int kElements = 256;
  uint16_t d;
  uint16_t rows_signs[32];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ2_XS) == 74 && alignof(BlockIQ2_XS) == 2);

/// IQ2_S: 2.5625 bits. Scale: 4 bits per 16 weights. Grid: 1024 octets, values 8, 25, 43. Meaning as IQ2_XXS.
/// Bytes: 0 d, 2…33 low 8 bits of each octet's row, 34…65 one sign bit per weight, 66…73 high 2 bits of the rows, 74…81
/// scales, two per byte.
struct BlockIQ2_S {
  static constexpr int kElements = 256;
  uint16_t d;
  uint8_t rows[32];
  uint8_t signs[32];
  uint8_t rows_high[8];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ2_S) == 82 && alignof(BlockIQ2_S) == 2);

/// IQ1_S: 1.5625 bits. Scale: 3 bits per 32 weights. Grid: 2048 octets, values −1, 0, 1.
/// Meaning: (d·(2·scale + 1))·(grid value + δ), δ = ±1/8 per 32 weights. Bytes: 0 d, 2…33 low 8 bits of each octet's
/// row, 34…49 per 32 weights 16 bits: 3 high bits of each of 4 rows, 3 of scale, 1 for the sign of δ.
struct BlockIQ1_S {
  static constexpr int kElements = 256;
  uint16_t d;
  uint8_t rows[32];
  uint16_t rows_high_scale[8];
};
static_assert(sizeof(BlockIQ1_S) == 50 && alignof(BlockIQ1_S) == 2);

/// IQ1_M: 1.75 bits. Scale: 3 bits per 16 weights. Grid of IQ1_S, δ per octet. Meaning as IQ1_S.
/// Bytes: 0…31 low 8 bits of each octet's row, 32…47 per octet 3 high bits and the sign of δ, 48…55 four 16-bit
/// numbers: four scales each, and in the top 4 bits a quarter of the f16 d (iq1_m_d()).
struct BlockIQ1_M {
  static constexpr int kElements = 256;
  uint8_t rows[32];
  uint8_t rows_high[16];
  uint16_t scales[4];
};
static_assert(sizeof(BlockIQ1_M) == 56 && alignof(BlockIQ1_M) == 2);

template <typename Block>
concept IsGridFormat = std::same_as<Block, BlockIQ3_XXS> || std::same_as<Block, BlockIQ3_S> ||
    std::same_as<Block, BlockIQ2_XXS> || std::same_as<Block, BlockIQ2_XS> || std::same_as<Block, BlockIQ2_S> ||
    std::same_as<Block, BlockIQ1_S> || std::same_as<Block, BlockIQ1_M>;

/// The f16 bits of an IQ1_M block's d.
constexpr uint16_t iq1_m_d(const BlockIQ1_M& block) {
  return static_cast<uint16_t>((block.scales[0] >> 12) | ((block.scales[1] >> 12) << 4) |
                               ((block.scales[2] >> 12) << 8) | ((block.scales[3] >> 12) << 12));
}

}  // namespace moraine::quant

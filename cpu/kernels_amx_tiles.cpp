#include "cpu/kernels_amx_tiles.h"

#include <immintrin.h>

#include <cstdint>

namespace moraine::cpu {
namespace {

/// The 64 bytes that LDTILECFG reads (Intel SDM, volume 1, chapter 18).
struct alignas(64) TileConfiguration {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfiguration) == 64);

}  // namespace

void amx_begin() noexcept {
  TileConfiguration configuration;
  for (int i = 0; i < 8; ++i) {
    configuration.row_bytes[i] = kTileRowBytes;
    configuration.rows[i] = kTileRows;
  }
  // g++ 12's _tile_loadconfig tells the compiler that it reads 8 of the 64 bytes.
  asm volatile("ldtilecfg %0" ::"m"(configuration));
}

void amx_end() noexcept {
  _tile_release();
}

}  // namespace moraine::cpu

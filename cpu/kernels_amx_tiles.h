#pragma once

#include <immintrin.h>

#include <cstdint>

// For files compiled with -mamx-tile only; everything is in an anonymous namespace so that no function compiled for AMX
// stands in for another file's.
namespace moraine::cpu {
namespace {

/// Rows and bytes per row of a tile register.
constexpr int kTileRows = 16;
constexpr int kTileRowBytes = 64;

/// Configures the eight tiles of this thread while it lives; tiles hold zeros after. One at a time; needs amx_usable().
/// A product C[m, n] += A[m, k] · B[k, n] wants A with m rows of 4k' bytes, B with k' rows of 4n bytes and C with m
/// rows of 4n bytes, k' groups of 4 int8 or 2 bf16.
class TileConfiguration {
 public:
  struct Shape {
    uint8_t rows = kTileRows;
    uint16_t row_bytes = kTileRowBytes;
  };

  explicit TileConfiguration(const Shape (&shapes)[8]) noexcept {
    Config config = {};
    for (int i = 0; i < 8; ++i) {
      config.row_bytes[i] = shapes[i].row_bytes;
      config.rows[i] = shapes[i].rows;
    }
    // g++ 12's _tile_loadconfig tells the compiler that it reads 8 of the 64 bytes, its _tile_loadd that it reads none.
    asm volatile("ldtilecfg %0" ::"m"(config));
  }
  ~TileConfiguration() { _tile_release(); }
  TileConfiguration(const TileConfiguration&) = delete;
  TileConfiguration& operator=(const TileConfiguration&) = delete;

 private:
  /// The 64 bytes that LDTILECFG reads (Intel SDM, volume 1, chapter 18).
  struct alignas(64) Config {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  };
  static_assert(sizeof(Config) == 64);
};

}  // namespace
}  // namespace moraine::cpu

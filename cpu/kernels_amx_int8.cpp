#include "cpu/kernels_amx_int8.h"

#include <immintrin.h>

#include "cpu/kernels_amx_tiles.h"

// A 16-bit weight is 256 · its upper byte, signed, + its lower byte, unsigned: two products of bytes, whose sums are
// put together when they leave the tiles, once per 256 columns.
namespace moraine::cpu {
namespace {

static_assert(kInt8TileRows == kTileRows);

constexpr int64_t kTileBytes = kTileRows * kTileRowBytes;
constexpr int64_t kLimbBytes = kInt8Columns * kLanes;  // of a group's upper or lower bytes
constexpr int64_t kSums = kTileRows * kLanes;

/// Where the tiles of `rows` from `row` on have their numbers for a group of columns.
struct TileInput {
  const int8_t* q;        // [4][h][64]
  const float* scales;    // [h]
  int64_t row_count;      // h
  int64_t quarter_bytes;  // from 64 columns to the next

  TileInput(const Int8Rows& rows, int64_t row, int64_t group)
      : q(rows.q + rows.q_at(row, group, 0)),
        scales(rows.scales + rows.at(row, group)),
        row_count(rows.tile_rows(row)),
        quarter_bytes(row_count * kTileRowBytes) {}
};

/// Sums that left the tiles and are not yet added to acc: of one or two tiles with one group.
struct Pending {
  const int32_t* sums;  // [tile][upper, lower][16][16]
  __m512 d;             // of the weights
  float* acc;           // of the first tile
};

/// Adds rows `first` to `end` of a tile.
inline void add_sums(const Pending& pending, int64_t tile, int64_t first, int64_t end, const float* scales,
                     int64_t acc_stride) noexcept {
  const int32_t* upper = pending.sums + 2 * tile * kSums;
  float* acc = pending.acc + tile * kTileRows * acc_stride;
#pragma GCC unroll 8
  for (int64_t i = first; i < end; ++i) {
    const __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(upper + i * kLanes), 8),
                                         _mm512_load_si512(upper + kSums + i * kLanes));
    float* at = acc + i * acc_stride;
    const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), pending.d);
    _mm512_storeu_ps(at, _mm512_fmadd_ps(product, _mm512_set1_ps(scales[i]), _mm512_loadu_ps(at)));
  }
}

/// One or two tiles of activations (registers 0, 1) with one group of weights (2, 3): sums in 4 … 7, then in `sums`.
/// between(quarter) is called between products, which go on meanwhile.
template <int kTiles, class Between>
inline void multiply_group(const TileInput (&x)[2], const std::byte* panel, int32_t* sums, Between between) noexcept {
  _tile_zero(4);
  _tile_zero(5);
  if constexpr (kTiles > 1) {
    _tile_zero(6);
    _tile_zero(7);
  }
#pragma GCC unroll 4
  for (int64_t quarter = 0; quarter < 4; ++quarter) {
    _tile_loadd(0, x[0].q + quarter * x[0].quarter_bytes, kTileRowBytes);
    _tile_loadd(2, panel + quarter * kTileBytes, kTileRowBytes);
    _tile_dpbssd(4, 0, 2);
    _tile_loadd(3, panel + kLimbBytes + quarter * kTileBytes, kTileRowBytes);
    _tile_dpbsud(5, 0, 3);
    if constexpr (kTiles > 1) {
      _tile_loadd(1, x[1].q + quarter * x[1].quarter_bytes, kTileRowBytes);
      _tile_dpbssd(6, 1, 2);
      _tile_dpbsud(7, 1, 3);
    }
    between(quarter);
  }
  _tile_stored(4, sums, kTileRowBytes);
  _tile_stored(5, sums + kSums, kTileRowBytes);
  if constexpr (kTiles > 1) {
    _tile_stored(6, sums + 2 * kSums, kTileRowBytes);
    _tile_stored(7, sums + 3 * kSums, kTileRowBytes);
  }
}

/// Part `part` of `parts` of what will be needed of a group.
inline void prefetch_part(const PanelAhead& ahead, int64_t g, int64_t part, int64_t parts) noexcept {
  const std::byte* data = ahead.data + g * ahead.stride;
  for (int64_t at = part * ahead.bytes / parts; at < (part + 1) * ahead.bytes / parts; at += 64) {
    _mm_prefetch(data + at, _MM_HINT_T1);
  }
}

/// All groups of the panels with the two full tiles from `row` on, whose activations stay in L1 meanwhile. The sums of
/// one group are added while the products of the next are computed.
void multiply_two_tiles(const std::byte* panels, int64_t group_count, const Int8Rows& rows, int64_t row, int64_t group,
                        const PanelAhead& ahead, float* acc, int64_t acc_stride) noexcept {
  alignas(64) int32_t sums[2][4 * kSums];
  const TileInput x[2] = {{rows, row, group}, {rows, row + kTileRows, group}};
  const int64_t parts = 4 * (rows.count / kTileRows / 2), part = 4 * (row / kTileRows / 2);
  Pending pending = {};
  const auto add = [&](int64_t quarter) {
    const int64_t tile = quarter / 2, first = quarter % 2 * 8;
    add_sums(pending, tile, first, first + 8, x[tile].scales, acc_stride);
  };
  for (int64_t g = 0; g < group_count; ++g) {
    const std::byte* panel = panels + g * kInt8PanelBytes;
    multiply_group<2>(x, panel, sums[g % 2], [&](int64_t quarter) {
      prefetch_part(ahead, g, part + quarter, parts);
      if (g > 0) add(quarter);
    });
    pending = {sums[g % 2], _mm512_load_ps(panel + 2 * kLimbBytes), acc + row * acc_stride + g * kLanes};
  }
  for (int64_t quarter = 0; quarter < 4; ++quarter) add(quarter);
}

/// The same with what is left of the rows: one tile, or a full one and a shorter one.
template <int kTiles>
void multiply_last_tiles(const std::byte* panels, int64_t group_count, const Int8Rows& rows, int64_t row, int64_t group,
                         const PanelAhead& ahead, float* acc, int64_t acc_stride) noexcept {
  alignas(64) int32_t sums[4 * kSums];
  const TileInput x[2] = {{rows, row, group}, {rows, row + (kTiles - 1) * kTileRows, group}};
  for (int64_t g = 0; g < group_count; ++g) {
    const std::byte* panel = panels + g * kInt8PanelBytes;
    multiply_group<kTiles>(x, panel, sums, [](int64_t) {});
    if (row == 0) prefetch_part(ahead, g, 0, 1);
    const Pending pending = {sums, _mm512_load_ps(panel + 2 * kLimbBytes), acc + row * acc_stride + g * kLanes};
    for (int64_t tile = 0; tile < kTiles; ++tile) {
      add_sums(pending, tile, 0, x[tile].row_count, x[tile].scales, acc_stride);
    }
  }
}

}  // namespace

void amx_int8_multiply(const std::byte* panels, int64_t group_count, const Int8Rows& rows, int64_t group,
                       const PanelAhead& ahead, float* acc, int64_t acc_stride) noexcept {
  const auto last_rows = static_cast<uint8_t>(rows.count % kTileRows);
  const int64_t full_tiles = rows.count / kTileRows;
  int64_t tile = 0;
  if (full_tiles > 1) {
    const TileConfiguration::Shape full[8] = {};
    const TileConfiguration tiles(full);
    for (; tile + 2 <= full_tiles; tile += 2) {
      multiply_two_tiles(panels, group_count, rows, tile * kTileRows, group, ahead, acc, acc_stride);
    }
  }
  const int64_t row = tile * kTileRows;
  if (row == rows.count) return;
  // What is left: a full tile, a shorter one, or both.
  const TileConfiguration::Shape first = {.rows = tile < full_tiles ? uint8_t{kTileRows} : last_rows};
  const TileConfiguration::Shape second = {.rows = last_rows > 0 ? last_rows : uint8_t{kTileRows}};
  const TileConfiguration::Shape shapes[8] = {first, second, {}, {}, first, first, second, second};
  const TileConfiguration tiles(shapes);
  if (tile < full_tiles && last_rows > 0) {
    multiply_last_tiles<2>(panels, group_count, rows, row, group, ahead, acc, acc_stride);
  } else {
    multiply_last_tiles<1>(panels, group_count, rows, row, group, ahead, acc, acc_stride);
  }
}

}  // namespace moraine::cpu

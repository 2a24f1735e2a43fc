#include "cpu/kernels_amx_int8.h"

#include <immintrin.h>

#include "cpu/kernels_amx_tiles.h"
#include "cpu/kernels_prefetcher.h"

// A 16-bit weight is 256 · its upper byte, signed, + its lower byte, unsigned: two products of bytes, whose sums are
// put together when they leave the tiles, once per 256 columns. With integer scales (kMinima) it is 8 · its upper byte
// + its lower byte, both unsigned. All tiles have 16 rows, as configuring them anew for a shorter one takes longer:
// what lies behind its rows is multiplied too and not looked at.
namespace moraine::cpu {
namespace {

static_assert(kInt8TileRows == kTileRows);

constexpr int64_t kTileBytes = kTileRows * kTileRowBytes;
constexpr int64_t kLimbBytes = kInt8Columns * kLanes;  // of a group's upper or lower bytes
constexpr int64_t kSums = kTileRows * kLanes;

/// Where the tiles of `rows` from `row` on have their numbers for a group of columns.
struct TileInput {
  const int8_t* q;                  // [4][h][64]
  const float* scales;              // [h]
  const int16_t* minus_block_sums;  // [h][8]
  int64_t row_count;                // h
  int64_t quarter_bytes;            // from 64 columns to the next

  TileInput(const Int8Rows& rows, int64_t row, int64_t group)
      : q(rows.q + rows.q_at(row, group, 0)),
        scales(rows.scales + rows.at(row, group)),
        minus_block_sums(rows.minus_block_sums + 8 * rows.at(row, group)),
        row_count(rows.tile_rows(row)),
        quarter_bytes(row_count * kTileRowBytes) {}
};

/// Sums that left the tiles and are not yet added to acc: a product of 16 × 16.
struct Pending {
  const int32_t* sums;  // [upper, lower][16][16]
  const std::byte* panel;
  const TileInput* x;
  int64_t row_count;
  float* acc;
};

/// Adds a half, 0 or 1, of the rows.
template <bool kMinima>
inline void add_sums(const Pending& pending, int64_t half, int64_t acc_stride) noexcept {
  constexpr int64_t kHalf = kTileRows / 2;
  // Loaded once: the compiler can't know that what is stored to acc leaves them as they are.
  const __m512 d = _mm512_load_ps(pending.panel + kPanelD), dmin = _mm512_load_ps(pending.panel + kPanelDmin);
  __m512i minima[4];
#pragma GCC unroll 4
  for (int64_t pair = 0; pair < 4; ++pair) minima[pair] = _mm512_load_si512(pending.panel + kPanelMinima + pair * 64);
  const int16_t* minus_block_sums = pending.x->minus_block_sums;
  const float* scales = pending.x->scales;
  const auto add_row = [&](int64_t i) {
    const int32_t* upper = pending.sums + i * kLanes;
    const __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(upper), kMinima ? 3 : 8),
                                         _mm512_load_si512(upper + kSums));
    float* at = pending.acc + i * acc_stride;
    __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), d);
    if constexpr (kMinima) {
      __m512i minima_sum = _mm512_setzero_si512();
#pragma GCC unroll 4
      for (int64_t pair = 0; pair < 4; ++pair) {
        int32_t two;
        __builtin_memcpy(&two, minus_block_sums + 8 * i + 2 * pair, 4);
        minima_sum = _mm512_dpwssd_epi32(minima_sum, minima[pair], _mm512_set1_epi32(two));
      }
      product = _mm512_fmadd_ps(_mm512_cvtepi32_ps(minima_sum), dmin, product);
    }
    _mm512_storeu_ps(at, _mm512_fmadd_ps(product, _mm512_set1_ps(scales[i]), _mm512_loadu_ps(at)));
  };
  const int64_t first = half * kHalf;
  if (pending.row_count >= first + kHalf) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < kHalf; ++i) add_row(first + i);
  } else {
    for (int64_t i = first; i < pending.row_count; ++i) add_row(i);
  }
}

// The product of upper bytes; a macro, since the compiler takes literal register numbers alone.
#define MORAINE_MULTIPLY_UPPER(to, x, weights) \
  if constexpr (kMinima) {                     \
    _tile_dpbsud(to, x, weights);              \
  } else {                                     \
    _tile_dpbssd(to, x, weights);              \
  }

/// kTiles tiles of activations (registers 0, 1) times kGroups groups of weights, two products of 16 × 16 in all: sums
/// in registers 4 … 7, then in `sums`. between(quarter) is called between products, which go on meanwhile.
template <bool kMinima, int kTiles, int kGroups, class Between>
inline void multiply_two(const TileInput (&x)[2], const std::byte* panel, int32_t* sums, Between between) noexcept {
  static_assert(kTiles * kGroups == 2);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
#pragma GCC unroll 4
  for (int64_t quarter = 0; quarter < 4; ++quarter) {
    const std::byte* weights = panel + quarter * kTileBytes;
    _tile_loadd(0, x[0].q + quarter * x[0].quarter_bytes, kTileRowBytes);
    _tile_loadd(2, weights, kTileRowBytes);
    MORAINE_MULTIPLY_UPPER(4, 0, 2)
    _tile_loadd(3, weights + kLimbBytes, kTileRowBytes);
    _tile_dpbsud(5, 0, 3);
    if constexpr (kTiles == 2) {
      _tile_loadd(1, x[1].q + quarter * x[1].quarter_bytes, kTileRowBytes);
      MORAINE_MULTIPLY_UPPER(6, 1, 2)
      _tile_dpbsud(7, 1, 3);
    } else {
      _tile_loadd(1, weights + kInt8PanelBytes, kTileRowBytes);
      MORAINE_MULTIPLY_UPPER(6, 0, 1)
      _tile_loadd(2, weights + kInt8PanelBytes + kLimbBytes, kTileRowBytes);
      _tile_dpbsud(7, 0, 2);
    }
    between(quarter);
  }
  _tile_stored(4, sums, kTileRowBytes);
  _tile_stored(5, sums + kSums, kTileRowBytes);
  _tile_stored(6, sums + 2 * kSums, kTileRowBytes);
  _tile_stored(7, sums + 3 * kSums, kTileRowBytes);
}

/// All groups of the panels with kTiles tiles of activations from `row` on, which stay in L1 meanwhile. The sums of two
/// products of 16 × 16 are added while the next two are computed.
template <bool kMinima, int kTiles>
void multiply_tiles(const std::byte* panels, int64_t group_count, const Int8Rows& rows, int64_t row, int64_t group,
                    PanelPrefetcher& prefetcher, float* acc, int64_t acc_stride) noexcept {
  constexpr int64_t kGroups = 2 / kTiles;
  alignas(64) int32_t sums[2][4 * kSums];
  const TileInput x[2] = {{rows, row, group}, {rows, row + (kTiles - 1) * kTileRows, group}};
  Pending pending[2] = {};
  const auto add = [&](int64_t quarter) { add_sums<kMinima>(pending[quarter / 2], quarter % 2, acc_stride); };
  for (int64_t g = 0; g < group_count; g += kGroups) {
    const std::byte* panel = panels + g * kInt8PanelBytes;
    int32_t* to = sums[g / kGroups % 2];
    multiply_two<kMinima, kTiles, kGroups>(x, panel, to, [&](int64_t quarter) {
      prefetcher.next_part();
      if (g > 0) add(quarter);
    });
    for (int64_t i = 0; i < 2; ++i) {
      const int64_t tile = kTiles == 2 ? i : 0, of = kTiles == 2 ? 0 : i;  // the group of the step
      pending[i] = {.sums = to + i * 2 * kSums,
                    .panel = panel + of * kInt8PanelBytes,
                    .x = &x[tile],
                    .row_count = g + of < group_count ? x[tile].row_count : 0,
                    .acc = acc + (row + tile * kTileRows) * acc_stride + (g + of) * kLanes};
    }
  }
  for (int64_t quarter = 0; quarter < 4; ++quarter) add(quarter);
}

template <bool kMinima>
void multiply(const std::byte* panels, int64_t group_count, const Int8Rows& rows, int64_t group,
              const PanelAhead& ahead, float* acc, int64_t acc_stride) noexcept {
  const int64_t tile_count = (rows.count + kTileRows - 1) / kTileRows;
  const int64_t products = tile_count / 2 * group_count + tile_count % 2 * ((group_count + 1) / 2);  // multiply_two()
  PanelPrefetcher prefetcher(ahead, 4 * products);
  int64_t tile = 0;
  for (; tile + 2 <= tile_count; tile += 2) {
    multiply_tiles<kMinima, 2>(panels, group_count, rows, tile * kTileRows, group, prefetcher, acc, acc_stride);
  }
  if (tile < tile_count) {
    multiply_tiles<kMinima, 1>(panels, group_count, rows, tile * kTileRows, group, prefetcher, acc, acc_stride);
  }
}

}  // namespace

void amx_int8_multiply(const std::byte* panels, int64_t group_count, const Int8Rows& rows, int64_t group,
                       const PanelAhead& ahead, float* acc, int64_t acc_stride) noexcept {
  multiply<false>(panels, group_count, rows, group, ahead, acc, acc_stride);
}

void amx_int8_multiply_minima(const std::byte* panels, int64_t group_count, const Int8Rows& rows, int64_t group,
                              const PanelAhead& ahead, float* acc, int64_t acc_stride) noexcept {
  multiply<true>(panels, group_count, rows, group, ahead, acc, acc_stride);
}

}  // namespace moraine::cpu

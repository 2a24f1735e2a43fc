#pragma once

#include "cpu/kernels_int8_formats.h"
#include "cpu/kernels_prefetcher.h"

// The int8 kernels, written once over `V` as in kernels_impl.h (which says what V provides and why everything here is
// in an anonymous namespace). Additionally V has: set_int to_int max_int add_int largest sum store_int
// store_int8 prefetch where_less; dot4(sum, codes, x): sum + Σ of 4 products of bytes per lane, codes 0 … 127;
// dot4_signed: codes −128 … 127, of which kSignedOffset · Σ x must be subtracted; dot2: of 2 products of 16-bit
// integers; flip_signs: bytes
// + 128; look_up(16 bytes, codes); multiply_int32; for 16-bit integers multiply_int16, round_multiply_int16 (a·b / 2^15
// rounded), subtract_int16, even_bytes and even_halves(a, b): bytes or
// 16-bit integers of a where their number is even, of b where it is odd; shift_left_int16<n>,
// shift_right_arithmetic_int16<n>; kStreamRows: up to so many rows weights are used straight from memory; kPanelRows,
// kPanelTileGroups: the tile of sums that fits the registers.
namespace moraine::cpu {
namespace {

// ---- Weights as integers (Int8Format) -------------------------------------------------------------------------------

/// Four activations in every lane.
template <class V>
inline typename V::Int four_bytes(const void* from) noexcept {
  int32_t four;
  __builtin_memcpy(&four, from, 4);
  return V::set_int(four);
}

constexpr float kWeightRange = 32730.0f;  // of codes: leaves room for what rounding adds

/// In both 16-bit halves of every lane.
template <class V>
inline typename V::Int both_halves(typename V::Int a) noexcept {
  return V::even_halves(a, V::template shift_left<16>(a));
}

/// 1 / a, or 0 where a is 0.
template <class V>
inline typename V::Reg inverse_of(typename V::Reg numerator, typename V::Reg a) noexcept {
  return V::where_less(V::zero(), a, V::div(numerator, a), V::zero());
}

/// The integer scales of 16 rows for 256 columns.
template <class V, class Format>
struct IntegerScales {
  static constexpr int kHalves = Format::kDots;

  typename V::Reg d;
  /// [8 blocks][halves][16]: s, in both halves of a lane if weights are signed bytes
  alignas(64) std::byte scale[kChunkBlocks * kHalves * 64];
  /// Codes: [8 blocks][16][2 int16]: what is subtracted in columns 0 … 15 and 16 … 31
  alignas(64) std::byte subtrahend[Format::kSigned ? 64 : kChunkBlocks * 64];

  /// Of `count` ≤ kChunkBlocks blocks.
  void derive(const typename Format::ChunkScales& chunk, int64_t count) noexcept {
    typename Format::Scales rows[kChunkBlocks];
    for (int64_t i = 0; i < count; ++i) rows[i] = Format::scales(chunk, i);
    auto largest = V::zero(), largest_minimum = V::zero();
    for (int64_t i = 0; i < count; ++i) {
#pragma GCC unroll 2
      for (int h = 0; h < Format::kDots; ++h) largest = V::max(largest, magnitude<V>(rows[i].scale[h]));
#pragma GCC unroll 2
      for (int m = 0; m < Format::kMinima; ++m) {
        largest_minimum = V::max(largest_minimum, magnitude<V>(rows[i].minus_minimum[m]));
      }
    }
    if constexpr (Format::kSigned) {
      d = V::mul(largest, V::set(128.0f / 32767.0f));
      const auto inverse = inverse_of<V>(V::set(32767.0f), largest);
      for (int64_t i = 0; i < count; ++i) {
        V::store_int(scale + i * 64, both_halves<V>(V::to_int(V::mul(rows[i].scale[0], inverse))));
      }
    } else {
      const auto range = V::add(V::mul(largest, V::set(static_cast<float>(Format::kLargest))), largest_minimum);
      d = V::mul(range, V::set(1.0f / kWeightRange));
      const auto inverse = inverse_of<V>(V::set(1.0f), d);
      for (int64_t i = 0; i < count; ++i) {
        typename V::Int minus[2];
#pragma GCC unroll 2
        for (int h = 0; h < Format::kDots; ++h) {
          const auto s = V::to_int(V::mul(rows[i].scale[h], inverse));
          V::store_int(scale + (i * kHalves + h) * 64, s);
          minus[h] = Format::kOffset == 0 ? V::set_int(0) : V::multiply_int32(s, V::set_int(Format::kOffset));
        }
        if constexpr (Format::kDots == 1) minus[1] = minus[0];
#pragma GCC unroll 2
        for (int h = 0; h < 2 && Format::kMinima > 0; ++h) {
          const auto m = V::to_int(V::mul(rows[i].minus_minimum[h * Format::kMinima / 2], inverse));
          minus[h] = V::subtract_int(minus[h], m);
        }
        V::store_int(subtrahend + i * 64, V::even_halves(minus[0], V::template shift_left<16>(minus[1])));
      }
    }
  }

  typename V::Int scale_at(int64_t block, int h) const {
    return V::load_int(scale + (block * kHalves + h) * 64);
  }
  typename V::Int subtrahend_at(int64_t block) const {
    return V::load_int(subtrahend + block * 64);
  }
};

/// The formats that have integer scales: nothing is to be made.
template <class V, class Format>
requires(Format::kIntegerScales) struct IntegerScales<V, Format> {
  typename V::Reg d, dmin;
  const typename Format::ChunkScales* chunk;

  void derive(const typename Format::ChunkScales& of, int64_t /*count*/) noexcept {
    d = of.d;
    dmin = of.dmin;
    chunk = &of;
  }
  typename V::Int scale_at(int64_t block, int /*h*/) const { return Format::integer_scale(*chunk, block); }
  /// Of blocks 2·pair and 2·pair + 1.
  typename V::Int minima_at(int64_t pair) const { return Format::minima(*chunk, pair); }
};

/// Σ of minima times −Σ of activations. minima(pair): those of two blocks.
template <class V, class Minima>
inline typename V::Int minima_sum(Minima minima, const int16_t* minus_block_sums) noexcept {
  auto sum = V::set_int(0);
#pragma GCC unroll 4
  for (int64_t pair = 0; pair < kChunkBlocks / 2; ++pair) {
    sum = V::dot2(sum, minima(pair), four_bytes<V>(minus_block_sums + 2 * pair));
  }
  return sum;
}

/// Four columns of 16 rows: columns 0 and 2 in the halves of `even`'s lanes, 1 and 3 in those of `odd`'s.
template <class V>
struct WeightQuads {
  typename V::Int even, odd;
};

/// Signed bytes · scale, a 16-bit fraction in both halves.
template <class V>
inline WeightQuads<V> scale_signed(typename V::Int bytes, typename V::Int scale) noexcept {
  return {V::round_multiply_int16(V::template shift_left_int16<8>(bytes), scale),
          V::round_multiply_int16(V::bit_and(bytes, static_cast<int32_t>(0xff00ff00u)), scale)};
}

/// Codes · scale − minus, both in both halves.
template <class V>
inline WeightQuads<V> scale_codes(typename V::Int codes, typename V::Int scale, typename V::Int minus) noexcept {
  const auto even = V::bit_and(codes, 0x00ff00ff);
  const auto odd = V::bit_and(V::template shift_right<8>(codes), 0x00ff00ff);
  return {V::subtract_int16(V::multiply_int16(even, scale), minus),
          V::subtract_int16(V::multiply_int16(odd, scale), minus)};
}

// ---- Few rows of activations: weights from memory -------------------------------------------------------------------

/// How far ahead of its use each stream is prefetched, and its trailing scales; how many groups are read side by side
/// (measured: docs/kernels.md).
constexpr int64_t kPrefetchBytes = 3072;
constexpr int64_t kTailAheadBlocks = 2 * kChunkBlocks;
constexpr int kStreams = 2;

/// What a block of 32 columns takes of a group up to where its trailing scales begin: codes, and its share of headers.
template <class Format>
constexpr int64_t kStreamBlockBytes = Format::kCodeBytes + Format::kHeaderBytes / kChunkBlocks;

/// Brings block `block` of a group into the cache.
template <class V, class Format>
inline void prefetch_block(const std::byte* group, int64_t block) noexcept {
  const std::byte* bytes = group + block * kStreamBlockBytes<Format>;
#pragma GCC unroll 16
  for (int64_t line = 0; line < kStreamBlockBytes<Format>; line += 64) V::prefetch(bytes + line);
}

/// Its trailing scales, of a group of `blocks`. They are wanted for 256 columns at once: a line when its first block
/// comes.
template <class V, class Format>
inline void prefetch_tail(const std::byte* group, int64_t blocks, int64_t block) noexcept {
  if constexpr (Format::kTailBytes > 0) {
    if (block * Format::kTailBytes % 64 != 0) return;
    V::prefetch(group + blocks * kStreamBlockBytes<Format> + block * Format::kTailBytes);
  }
}

/// What a row of activations has of 256 columns.
struct ActivationColumns {
  const int8_t* q;
  const int16_t* pairs;
  int64_t quarter_stride;  // from 64 columns to the next
  const int16_t* minus_sums;
  const int16_t* minus_block_sums;
  float scale;

  ActivationColumns() = default;
  ActivationColumns(const Int8Rows& rows, int64_t row, int64_t group) noexcept
      : q(rows.q + rows.q_at(row, group, 0)),
        pairs(rows.pairs == nullptr ? nullptr : rows.pairs + rows.q_at(row, group, 0)),
        quarter_stride(rows.tile_rows(row) * 64),
        minus_sums(rows.minus_sums + 16 * rows.at(row, group)),
        minus_block_sums(rows.minus_block_sums + 8 * rows.at(row, group)),
        scale(rows.scales[rows.at(row, group)]) {}

  /// Columns 32·block + 4·step ….
  const int8_t* four(int64_t block, int64_t step) const {
    return q + block / 2 * quarter_stride + block % 2 * 32 + 4 * step;
  }
  /// The first or the second two of them.
  const int16_t* two(int64_t block, int64_t step, int odd) const {
    return pairs + block / 2 * quarter_stride + odd * 32 + block % 2 * 16 + 2 * step;
  }
};

/// sum[g][t] + Σ w·q over 32 columns. The chains of all groups and rows are interleaved: one alone is as slow as its
/// latency, and so the groups share what is loaded of the activations.
template <class V, class Format, int kGroups, int kRows>
inline void add_codes(typename V::Int (&sum)[kGroups][kRows], const typename V::Int (&operands)[kGroups][kSteps],
                      const IntegerScales<V, Format> (&scales)[kGroups], int64_t block,
                      const ActivationColumns (&x)[kRows]) noexcept {
  constexpr int64_t kDotSteps = kSteps / Format::kDots;
#pragma GCC unroll 2
  for (int h = 0; h < Format::kDots; ++h) {
    typename V::Int dot[kGroups][kRows];
#pragma GCC unroll 8
    for (int64_t step = 0; step < kDotSteps; ++step) {
#pragma GCC unroll 8
      for (int t = 0; t < kRows; ++t) {
        const auto four = four_bytes<V>(x[t].four(block, h * kDotSteps + step));
#pragma GCC unroll 8
        for (int g = 0; g < kGroups; ++g) {
          dot[g][t] = V::dot4(step == 0 ? V::set_int(0) : dot[g][t], operands[g][h * kDotSteps + step], four);
        }
      }
    }
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) {
#pragma GCC unroll 8
      for (int t = 0; t < kRows; ++t) {
        sum[g][t] = V::add_int(sum[g][t], V::multiply_int32(dot[g][t], scales[g].scale_at(block, h)));
      }
    }
  }
  if constexpr (!Format::kIntegerScales) {
#pragma GCC unroll 8
    for (int t = 0; t < kRows; ++t) {
      const auto minus_sums = four_bytes<V>(x[t].minus_sums + 2 * block);
#pragma GCC unroll 8
      for (int g = 0; g < kGroups; ++g) sum[g][t] = V::dot2(sum[g][t], scales[g].subtrahend_at(block), minus_sums);
    }
  }
}

/// `kGroups` groups side by side for `kRows` rows of activations, straight from the packed bytes, each read once and in
/// order. Towards their end the beginning of the kGroups groups at `next` is prefetched.
template <class V, class Format, int kGroups, int kRows>
void stream_groups(const std::byte* data, const std::byte* next, int64_t group_bytes, const Int8Rows& rows, float* out,
                   int64_t out_stride) noexcept {
  constexpr int64_t kAheadBlocks = kPrefetchBytes / kStreamBlockBytes<Format>;
  const int64_t blocks = rows.cols / kBlockColumns;
  typename V::Reg total[kGroups][kRows];
#pragma GCC unroll 8
  for (int g = 0; g < kGroups; ++g) {
#pragma GCC unroll 8
    for (int t = 0; t < kRows; ++t) total[g][t] = V::zero();
  }
  for (int64_t first = 0; first < blocks; first += kChunkBlocks) {
    const int64_t count = blocks - first < kChunkBlocks ? blocks - first : kChunkBlocks;
    typename Format::ChunkScales chunk[kGroups];
    IntegerScales<V, Format> scales[kGroups];
    typename V::Int sum[kGroups][kRows];
    ActivationColumns x[kRows];
#pragma GCC unroll 8
    for (int t = 0; t < kRows; ++t) x[t] = ActivationColumns(rows, t, first / kChunkBlocks);
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) {
      Format::open_chunk(data + g * group_bytes, rows.cols, first, chunk[g]);
      scales[g].derive(chunk[g], count);
#pragma GCC unroll 8
      for (int t = 0; t < kRows; ++t) sum[g][t] = V::set_int(0);
    }
    const std::byte* codes = Format::codes(data, first);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t ahead = first + i + kAheadBlocks;
      const bool inside = ahead < blocks;
      const std::byte* ahead_data = inside ? data : next;
      const int64_t ahead_block = inside ? ahead : ahead - blocks;
      const int64_t tail = first + i + kTailAheadBlocks;
      const std::byte* tail_data = tail < blocks ? data : next;
      const int64_t tail_block = tail < blocks ? tail : tail - blocks;
      typename V::Int operands[kGroups][kSteps];
#pragma GCC unroll 8
      for (int g = 0; g < kGroups; ++g) {
        prefetch_block<V, Format>(ahead_data + g * group_bytes, ahead_block);
        prefetch_tail<V, Format>(tail_data + g * group_bytes, blocks, tail_block);
        Format::operands(codes + g * group_bytes + i * Format::kCodeBytes, chunk[g], i, operands[g]);
        if constexpr (Format::kSigned) {
          const auto scale = scales[g].scale_at(i, 0);
#pragma GCC unroll 8
          for (int64_t step = 0; step < kSteps; ++step) {
            const auto weights = scale_signed<V>(operands[g][step], scale);
#pragma GCC unroll 8
            for (int t = 0; t < kRows; ++t) {
              sum[g][t] = V::dot2(sum[g][t], weights.even, four_bytes<V>(x[t].two(i, step, 0)));
              sum[g][t] = V::dot2(sum[g][t], weights.odd, four_bytes<V>(x[t].two(i, step, 1)));
            }
          }
        }
      }
      if constexpr (!Format::kSigned) add_codes<V, Format, kGroups, kRows>(sum, operands, scales, i, x);
    }
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) {
#pragma GCC unroll 8
      for (int t = 0; t < kRows; ++t) {
        auto product = V::mul(V::to_float(sum[g][t]), scales[g].d);
        if constexpr (Format::kIntegerScales) {
          const auto minima = [&](int64_t pair) { return scales[g].minima_at(pair); };
          product = V::fma(V::to_float(minima_sum<V>(minima, x[t].minus_block_sums)), scales[g].dmin, product);
        }
        total[g][t] = V::fma(product, V::set(x[t].scale), total[g][t]);
      }
    }
  }
#pragma GCC unroll 8
  for (int g = 0; g < kGroups; ++g) {
#pragma GCC unroll 8
    for (int t = 0; t < kRows; ++t) V::store(out + t * out_stride + g * kLanes, total[g][t]);
  }
}

/// Groups `first` to the last, `kGroups` at a time, the rest by halves.
template <class V, class Format, int kGroups, int kRows>
void stream_all(const PackedGroups& groups, int64_t first, const Int8Rows& rows, float* out,
                int64_t out_stride) noexcept {
  int64_t g = first;
  for (; g + kGroups <= groups.group_count; g += kGroups) {
    stream_groups<V, Format, kGroups, kRows>(groups.data + g * groups.group_bytes, groups.group_or_next(g + kGroups),
                                             groups.group_bytes, rows, out + g * kLanes, out_stride);
  }
  if constexpr (kGroups > 1) {
    if (g < groups.group_count) stream_all<V, Format, kGroups / 2, kRows>(groups, g, rows, out, out_stride);
  }
}

/// Up to so many rows are faster straight from memory than through a panel (measured: docs/kernels.md).
template <class V, class Format>
constexpr int kStreamedRows = Format::kSigned&& V::kStreamRows > 5 ? 5 : V::kStreamRows;

/// All groups for `rows`.count ≤ kRows rows of activations.
template <class V, class Format, int kRows>
void stream_rows(const PackedGroups& groups, const Int8Rows& rows, float* out, int64_t out_stride) noexcept {
  if (rows.count == kRows) {
    stream_all<V, Format, kStreams, kRows>(groups, 0, rows, out, out_stride);
  } else if constexpr (kRows > 1) {
    stream_rows<V, Format, kRows - 1>(groups, rows, out, out_stride);
  }
}

// ---- Many rows of activations: weights unpacked ---------------------------------------------------------------------
// A panel has, per four columns, the 16-bit weights of WeightQuads in 128 bytes; for matrix units their upper bytes
// (signed) as [4][16 k][16 rows][4] and then their lower bytes (unsigned) in the same order. If scales are integers,
// the upper bytes are codes times a scale's upper bits, the lower ones codes times its lower three, both unsigned.

template <class V, bool kLimbs>
inline void store_quads(const WeightQuads<V>& weights, std::byte* panel, int64_t quad) noexcept {
  if constexpr (kLimbs) {
    const auto low = V::even_bytes(weights.even, V::template shift_left_int16<8>(weights.odd));
    const auto high = V::even_bytes(V::template shift_right<8>(weights.even), weights.odd);
    V::store_int(panel + quad * 64, high);
    V::store_int(panel + kPanelWeightBytes / 2 + quad * 64, low);
  } else {
    V::store_int(panel + quad * 128, weights.even);
    V::store_int(panel + quad * 128 + 64, weights.odd);
  }
}

/// A block of codes times integer scales.
template <class V, bool kLimbs>
inline void store_codes(const typename V::Int (&operands)[kSteps], typename V::Int scale, std::byte* panel,
                        int64_t block) noexcept {
  if constexpr (kLimbs) {
    // Two bytes at a time: no product is larger than 7 · 31.
    const auto upper = both_halves<V>(V::template shift_right<3>(scale)), lower = both_halves<V>(V::bit_and(scale, 7));
#pragma GCC unroll 8
    for (int64_t step = 0; step < kSteps; ++step) {
      std::byte* at = panel + (block * kSteps + step) * 64;
      V::store_int(at, V::multiply_int16(operands[step], upper));
      V::store_int(at + kPanelWeightBytes / 2, V::multiply_int16(operands[step], lower));
    }
  } else {
    const auto both = both_halves<V>(scale);
#pragma GCC unroll 8
    for (int64_t step = 0; step < kSteps; ++step) {
      store_quads<V, false>(scale_codes<V>(operands[step], both, V::set_int(0)), panel, block * kSteps + step);
    }
  }
}

/// Int8Format::unpack.
template <class V, class Format, bool kLimbs>
void int8_unpack(const std::byte* data, int64_t cols, int64_t group, const PanelAhead& ahead,
                 std::byte* panel) noexcept {
  const int64_t blocks = cols / kBlockColumns, first = group * kChunkBlocks;
  const int64_t count = blocks - first < kChunkBlocks ? blocks - first : kChunkBlocks;
  typename Format::ChunkScales chunk;
  IntegerScales<V, Format> scales;
  Format::open_chunk(data, cols, first, chunk);
  scales.derive(chunk, count);
  PanelPrefetcher prefetcher(ahead, kChunkBlocks);
  for (int64_t i = 0; i < count; ++i) {
    prefetcher.next_part();
    typename V::Int operands[kSteps];
    Format::operands(Format::codes(data, first + i), chunk, i, operands);
    if constexpr (Format::kSigned) {
      const auto scale = scales.scale_at(i, 0);
#pragma GCC unroll 8
      for (int64_t step = 0; step < kSteps; ++step) {
        store_quads<V, kLimbs>(scale_signed<V>(operands[step], scale), panel, i * kSteps + step);
      }
    } else if constexpr (Format::kIntegerScales) {
      store_codes<V, kLimbs>(operands, scales.scale_at(i, 0), panel, i);
    } else {
      const auto subtrahend = scales.subtrahend_at(i);
#pragma GCC unroll 2
      for (int64_t h = 0; h < 2; ++h) {
        const auto scale = both_halves<V>(scales.scale_at(i, Format::kDots == 1 ? 0 : static_cast<int>(h)));
        const auto minus = both_halves<V>(h == 0 ? subtrahend : V::template shift_right<16>(subtrahend));
#pragma GCC unroll 4
        for (int64_t step = 4 * h; step < 4 * h + 4; ++step) {
          store_quads<V, kLimbs>(scale_codes<V>(operands[step], scale, minus), panel, i * kSteps + step);
        }
      }
    }
  }
  V::store(reinterpret_cast<float*>(panel + kPanelD), scales.d);
  if constexpr (Format::kIntegerScales) {
    V::store(reinterpret_cast<float*>(panel + kPanelDmin), scales.dmin);
#pragma GCC unroll 4
    for (int64_t pair = 0; pair < kChunkBlocks / 2; ++pair) {
      V::store_int(panel + kPanelMinima + pair * 64, scales.minima_at(pair));
    }
  }
}

/// kGroups × kRows sums in registers.
template <class V, bool kMinima, int kGroups, int kRows>
void int8_tile(const std::byte* panels, const Int8Rows& rows, int64_t row, int64_t group, float* acc,
               int64_t acc_stride) noexcept {
  ActivationColumns x[kRows];
  typename V::Int sum[kGroups][kRows];
#pragma GCC unroll 8
  for (int t = 0; t < kRows; ++t) {
    x[t] = ActivationColumns(rows, row + t, group);
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) sum[g][t] = V::set_int(0);
  }
  const int64_t left = rows.cols - group * kInt8Columns;
  const int64_t blocks = (left < kInt8Columns ? left : kInt8Columns) / kBlockColumns;
  for (int64_t block = 0; block < blocks; ++block) {
#pragma GCC unroll 8
    for (int64_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 2
      for (int odd = 0; odd < 2; ++odd) {
        typename V::Int weights[kGroups];
#pragma GCC unroll 8
        for (int g = 0; g < kGroups; ++g) {
          weights[g] = V::load_int(panels + g * kInt8PanelBytes + (block * kSteps + step) * 128 + odd * 64);
        }
#pragma GCC unroll 8
        for (int t = 0; t < kRows; ++t) {
          const auto two = four_bytes<V>(x[t].two(block, step, odd));
#pragma GCC unroll 8
          for (int g = 0; g < kGroups; ++g) sum[g][t] = V::dot2(sum[g][t], weights[g], two);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int g = 0; g < kGroups; ++g) {
    const std::byte* of_group = panels + g * kInt8PanelBytes;
    const auto d = V::load(reinterpret_cast<const float*>(of_group + kPanelD));
#pragma GCC unroll 8
    for (int t = 0; t < kRows; ++t) {
      float* at = acc + t * acc_stride + g * kLanes;
      auto product = V::mul(V::to_float(sum[g][t]), d);
      if constexpr (kMinima) {
        const auto minima = [&](int64_t pair) { return V::load_int(of_group + kPanelMinima + pair * 64); };
        const auto dmin = V::load(reinterpret_cast<const float*>(of_group + kPanelDmin));
        product = V::fma(V::to_float(minima_sum<V>(minima, x[t].minus_block_sums)), dmin, product);
      }
      V::store(at, V::fma(product, V::set(x[t].scale), V::load(at)));
    }
  }
}

/// All groups of a panel for `kRows` rows, `kGroups` at a time, the rest by halves.
template <class V, bool kMinima, int kGroups, int kRows>
void int8_groups(const std::byte* panels, int64_t g, int64_t group_count, const Int8Rows& rows, int64_t row,
                 int64_t group, float* acc, int64_t acc_stride) noexcept {
  for (; g + kGroups <= group_count; g += kGroups) {
    int8_tile<V, kMinima, kGroups, kRows>(panels + g * kInt8PanelBytes, rows, row, group, acc + g * kLanes, acc_stride);
  }
  if constexpr (kGroups > 1) {
    if (g < group_count) {
      int8_groups<V, kMinima, kGroups / 2, kRows>(panels, g, group_count, rows, row, group, acc, acc_stride);
    }
  }
}

/// Chooses the tile for `row_count` ≤ kRows.
template <class V, bool kMinima, int kRows>
void int8_rows(const std::byte* panels, int64_t group_count, const Int8Rows& rows, int64_t row, int64_t row_count,
               int64_t group, float* acc, int64_t acc_stride) noexcept {
  if (row_count == kRows) {
    int8_groups<V, kMinima, V::kPanelTileGroups, kRows>(panels, 0, group_count, rows, row, group, acc, acc_stride);
  } else if constexpr (kRows > 1) {
    int8_rows<V, kMinima, kRows - 1>(panels, group_count, rows, row, row_count, group, acc, acc_stride);
  }
}

/// Int8Multiply, in tiles of sizes that differ by at most 1.
template <class V, bool kMinima>
void int8_multiply(const std::byte* panels, int64_t group_count, const Int8Rows& rows, int64_t group,
                   const PanelAhead& ahead, float* acc, int64_t acc_stride) noexcept {
  const int64_t tiles = (rows.count + V::kPanelRows - 1) / V::kPanelRows;
  PanelPrefetcher prefetcher(ahead, tiles);
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t row = tile * rows.count / tiles, end = (tile + 1) * rows.count / tiles;
    prefetcher.next_part();
    int8_rows<V, kMinima, V::kPanelRows>(panels, group_count, rows, row, end - row, group, acc + row * acc_stride,
                                         acc_stride);
  }
}

template <class V, class Format>
constexpr Int8Format int8_format() {
  Int8Format format;
  if constexpr (Format::kStreamed) {
    format.stream_rows = kStreamedRows<V, Format>;
    format.stream = stream_rows<V, Format, kStreamedRows<V, Format>>;
  }
  format.column_bytes = kChunkBlocks * kStreamBlockBytes<Format>;
  format.minima = Format::kIntegerScales;
  format.unpack = int8_unpack<V, Format, false>;
  if constexpr (V::kHasLimbs) format.unpack_limbs = int8_unpack<V, Format, true>;
  return format;
}

// ---- Activations ----------------------------------------------------------------------------------------------------

/// 64 columns: their integers, in both orders, and −Σ of each 16.
template <class V>
void store_quarter(const typename V::Int (&q)[4], int8_t* bytes, int16_t* minus_sums, int16_t* pairs) noexcept {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    V::store_int8(bytes + i * kLanes, q[i]);
    minus_sums[i] = static_cast<int16_t>(-V::sum(q[i]));
  }
  if (pairs == nullptr) return;
  const auto quads = V::load_int(reinterpret_cast<const std::byte*>(bytes));
  V::store_int(reinterpret_cast<std::byte*>(pairs),
               V::template shift_right_arithmetic_int16<8>(V::template shift_left_int16<8>(quads)));
  V::store_int(reinterpret_cast<std::byte*>(pairs + 32), V::template shift_right_arithmetic_int16<8>(quads));
}

template <class V>
void quantize_activations(const float* x, const Int8Rows& rows, int64_t row) noexcept {
  constexpr int64_t kParts = kInt8Columns / kLanes;
  constexpr int32_t kInfinityBits = 0x7f800000;
  for (int64_t group = 0; group < rows.groups(); ++group, x += kInt8Columns) {
    const int64_t left = (rows.cols - group * kInt8Columns) / kLanes, parts = left < kParts ? left : kParts;
    // Bits of magnitudes are ordered as the numbers are, infinity and NaN above all.
    auto magnitudes = V::set_int(0);
    for (int64_t i = 0; i < parts; ++i) {
      magnitudes = V::max_int(magnitudes, V::bit_and(V::as_int(V::load(x + i * kLanes)), 0x7fffffff));
    }
    const int32_t largest_bits = V::largest(magnitudes);
    float largest;
    __builtin_memcpy(&largest, &largest_bits, 4);
    const bool finite = largest_bits < kInfinityBits, zero = !finite || largest < kSmallestActivation;
    const auto inverse = V::set(zero ? 0.0f : 127.0f / largest);
    rows.scales[rows.at(row, group)] = !finite ? __builtin_nanf("") : zero ? 0.0f : largest / 127.0f;
    for (int64_t quarter = 0; quarter < 4; ++quarter) {
      typename V::Int q[4];
      for (int64_t i = 0; i < 4; ++i) {
        const int64_t part = 4 * quarter + i;
        q[i] = zero || part >= parts ? V::set_int(0) : V::to_int(V::mul(V::load(x + part * kLanes), inverse));
      }
      const int64_t at = rows.q_at(row, group, quarter);
      store_quarter<V>(q, rows.q + at, rows.minus_sums + 16 * rows.at(row, group) + 4 * quarter,
                       rows.pairs == nullptr ? nullptr : rows.pairs + at);
    }
    const int16_t* sums = rows.minus_sums + 16 * rows.at(row, group);
    int16_t* block_sums = rows.minus_block_sums + 8 * rows.at(row, group);
    for (int64_t i = 0; i < 8; ++i) block_sums[i] = static_cast<int16_t>(sums[2 * i] + sums[2 * i + 1]);
  }
}

}  // namespace
}  // namespace moraine::cpu

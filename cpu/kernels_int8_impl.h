#pragma once

#include "cpu/kernels_int8_formats.h"

// The int8 kernels, written once over `V` as in kernels_impl.h (which says what V provides and why everything here is
// in an anonymous namespace). Additionally V has: set_int to_int max_int add_int largest sum store_int store_int8
// prefetch; dot4(sum, codes, x): sum + Σ of 4 products per lane, codes 0 … 15; q8_operand, dot4_q8, q8_start: the same
// for signed weights; biased_operand(q + 128) = q8_operand(q); look_up(16 bytes, codes); multiply_int16; kStreamTokens:
// up to so many tokens weights are used straight from memory; kInt8Tokens, int8_groups(tokens): the tile of sums that
// fits the registers.
//
// A sum of products starts at kSumBias, so that its bits are the f32 number kSumBiasValue + dot: one fma by
// (scale, −kSumBiasValue · scale), both exact, gives dot · scale rounded once and no conversion is needed.
namespace moraine::cpu {
namespace {

/// Four activations in every lane.
template <class V>
inline typename V::Int four_activations(const ActivationBlock& x, int64_t step) noexcept {
  int32_t four;
  __builtin_memcpy(&four, x.q + 4 * step, 4);
  return V::set_int(four);
}

/// What one integer dot product adds to a row's f32 sum.
template <class V, class Format>
inline typename V::Reg add_dot(typename V::Reg sum, typename V::Int dot, const typename Format::Scales& rows, int h,
                               const ActivationBlock& x) noexcept {
  return V::fma(V::fma(V::as_float(dot), rows.scale[h], rows.shift[h]), V::set(x.scale), sum);
}

/// What the minima of 32 columns add, after the dot products.
template <class V, class Format>
inline typename V::Reg add_minima(typename V::Reg sum, const typename Format::Scales& rows,
                                  const ActivationBlock& x) noexcept {
  if constexpr (Format::kMinima == 1) return V::fma(rows.minus_minimum[0], V::set(x.scaled_sum), sum);
  if constexpr (Format::kMinima == 2) {
    sum = V::fma(rows.minus_minimum[0], V::set(x.half_scaled_sums[0]), sum);
    return V::fma(rows.minus_minimum[1], V::set(x.half_scaled_sums[1]), sum);
  }
  return sum;
}

/// Integer dot product `h` of 32 columns, in two chains if only they keep the multipliers busy.
template <class V, class Format, bool kTwoChains>
inline typename V::Int dot_block(const typename V::Int (&operands)[kSteps], const ActivationBlock& block,
                                 int h) noexcept {
  constexpr int64_t kDotSteps = kSteps / Format::kDots;
  const int64_t begin = h * kDotSteps;
  auto sum = Format::start(block, h);
  if constexpr (kTwoChains && Format::kDots == 1) {
    auto second = V::set_int(0);
#pragma GCC unroll 8
    for (int64_t step = 0; step < kSteps; step += 2) {
      sum = Format::dot(sum, operands[step], four_activations<V>(block, step));
      second = Format::dot(second, operands[step + 1], four_activations<V>(block, step + 1));
    }
    return V::add_int(sum, second);
  }
#pragma GCC unroll 8
  for (int64_t step = 0; step < kDotSteps; ++step) {
    sum = Format::dot(sum, operands[begin + step], four_activations<V>(block, begin + step));
  }
  return sum;
}

/// What 32 columns add to a row's f32 sum.
template <class V, class Format, bool kTwoChains>
inline typename V::Reg add_block(typename V::Reg sum, const typename V::Int (&operands)[kSteps],
                                 const typename Format::Scales& rows, const ActivationBlock& block) noexcept {
#pragma GCC unroll 2
  for (int h = 0; h < Format::kDots; ++h) {
    sum = add_dot<V, Format>(sum, dot_block<V, Format, kTwoChains>(operands, block, h), rows, h, block);
  }
  return add_minima<V, Format>(sum, rows, block);
}

/// How far ahead of its use each stream is prefetched, and how many groups are read side by side for one token
/// (measured: docs/kernels.md).
constexpr int64_t kPrefetchBytes = 1600;
constexpr int kDecodeStreams = 4;

/// What a block of 32 columns takes of a group up to where its trailing scales begin: codes, and its share of headers.
template <class Format>
constexpr int64_t kStreamBlockBytes = Format::kCodeBytes + Format::kHeaderBytes / kChunkBlocks;

/// Brings block `block` of `blocks` of a group into the cache.
template <class V, class Format>
inline void prefetch_block(const std::byte* group, int64_t blocks, int64_t block) noexcept {
  const std::byte* bytes = group + block * kStreamBlockBytes<Format>;
#pragma GCC unroll 16
  for (int64_t line = 0; line < kStreamBlockBytes<Format>; line += 64) V::prefetch(bytes + line);
  if constexpr (Format::kTailBytes > 0) {
    V::prefetch(group + blocks * kStreamBlockBytes<Format> + block * Format::kTailBytes);
  }
}

/// `kGroups` groups side by side for `kTokens` tokens, straight from the packed bytes, each read once and in order.
/// Towards their end the beginning of the next kGroups groups is prefetched: they are this thread's next, or nobody's.
template <class V, class Format, int kGroups, int kTokens>
void stream_groups(const std::byte* group, int64_t group_bytes, int64_t cols, const ActivationBlock* const* x,
                   float* out, int64_t out_stride) noexcept {
  constexpr int64_t kAheadBlocks = kPrefetchBytes / kStreamBlockBytes<Format>;
  const int64_t blocks = cols / kActivationBlock;
  typename V::Reg sum[kGroups][kTokens];
#pragma GCC unroll 8
  for (int g = 0; g < kGroups; ++g) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) sum[g][t] = V::zero();
  }
  for (int64_t first = 0; first < blocks; first += kChunkBlocks) {
    typename Format::ChunkScales chunk[kGroups];
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) Format::open_chunk(group + g * group_bytes, cols, first, chunk[g]);
    const std::byte* chunk_codes = Format::codes(group, first);
    const int64_t count = blocks - first < kChunkBlocks ? blocks - first : kChunkBlocks;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t ahead = first + i + kAheadBlocks;
      const bool in_group = ahead < blocks;
      const std::byte* ahead_group = in_group ? group : group + kGroups * group_bytes;
      const int64_t ahead_block = in_group ? ahead : ahead - blocks;
#pragma GCC unroll 8
      for (int g = 0; g < kGroups; ++g) {
        prefetch_block<V, Format>(ahead_group + g * group_bytes, blocks, ahead_block);
        typename V::Int operands[kSteps];
        Format::operands(chunk_codes + g * group_bytes + i * Format::kCodeBytes, chunk[g], i, operands);
        const typename Format::Scales rows = Format::scales(chunk[g], i);
#pragma GCC unroll 8
        for (int t = 0; t < kTokens; ++t) {
          const ActivationBlock& block = x[t][first + i];
          sum[g][t] = add_block<V, Format, kTokens <= 2>(sum[g][t], operands, rows, block);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int g = 0; g < kGroups; ++g) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) V::store(out + t * out_stride + g * kLanes, sum[g][t]);
  }
}

/// Groups `first` to the last, `kGroups` at a time, the rest by halves.
template <class V, class Format, int kGroups, int kTokens>
void stream_all(const PackedGroups& groups, int64_t first, const ActivationBlock* const* x, float* out,
                int64_t out_stride) noexcept {
  int64_t g = first;
  for (; g + kGroups <= groups.group_count; g += kGroups) {
    stream_groups<V, Format, kGroups, kTokens>(groups.data + g * groups.group_bytes, groups.group_bytes, groups.cols, x,
                                               out + g * kLanes, out_stride);
  }
  if constexpr (kGroups > 1) {
    if (g < groups.group_count) stream_all<V, Format, kGroups / 2, kTokens>(groups, g, x, out, out_stride);
  }
}

/// Unpacked weights of a group: per block of 32 columns kSteps operands, then scales, shifts and −minima (up to 4), 64
/// bytes each.
constexpr int64_t kPanelBlockBytes = (kSteps + 4) * 64;
constexpr int64_t kPanelGroupBytes = kChunkBlocks * kPanelBlockBytes;
constexpr int64_t kPanelGroupCount = 4;
static_assert(kPanelGroupCount * kPanelGroupBytes <= kInt8PanelBytes);

template <class V, class Format>
void store_scales(const typename Format::Scales& rows, float* panel) noexcept {
#pragma GCC unroll 2
  for (int h = 0; h < Format::kDots; ++h) {
    V::store(panel + 2 * h * kLanes, rows.scale[h]);
    V::store(panel + (2 * h + 1) * kLanes, rows.shift[h]);
  }
#pragma GCC unroll 2
  for (int m = 0; m < Format::kMinima; ++m) V::store(panel + (2 * Format::kDots + m) * kLanes, rows.minus_minimum[m]);
}

template <class V, class Format>
typename Format::Scales load_scales(const float* panel) noexcept {
  typename Format::Scales rows;
#pragma GCC unroll 2
  for (int h = 0; h < Format::kDots; ++h) {
    rows.scale[h] = V::load(panel + 2 * h * kLanes);
    rows.shift[h] = V::load(panel + (2 * h + 1) * kLanes);
  }
#pragma GCC unroll 2
  for (int m = 0; m < Format::kMinima; ++m) rows.minus_minimum[m] = V::load(panel + (2 * Format::kDots + m) * kLanes);
  return rows;
}

/// `count` ≤ kChunkBlocks blocks of a group.
template <class V, class Format>
void unpack_chunk(const std::byte* group, int64_t cols, int64_t first, int64_t count, std::byte* panel) noexcept {
  typename Format::ChunkScales chunk;
  Format::open_chunk(group, cols, first, chunk);
  for (int64_t i = 0; i < count; ++i, panel += kPanelBlockBytes) {
    typename V::Int operands[kSteps];
    Format::operands(Format::codes(group, first + i), chunk, i, operands);
#pragma GCC unroll 8
    for (int64_t step = 0; step < kSteps; ++step) V::store_int(panel + step * 64, operands[step]);
    store_scales<V, Format>(Format::scales(chunk, i), reinterpret_cast<float*>(panel + kSteps * 64));
  }
}

/// acc[t][16g + lane] continued over `count` unpacked blocks: kGroups × kTokens sums in registers.
template <class V, class Format, int kGroups, int kTokens>
void int8_tile(const std::byte* panel, int64_t count, const ActivationBlock* const* x, int64_t first, float* acc,
               int64_t acc_stride) noexcept {
  const ActivationBlock* blocks[kTokens];
  typename V::Reg sum[kGroups][kTokens];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
    blocks[t] = x[t] + first;
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) sum[g][t] = V::load(acc + t * acc_stride + g * kLanes);
  }
  for (int64_t i = 0; i < count; ++i, panel += kPanelBlockBytes) {
#pragma GCC unroll 2
    for (int h = 0; h < Format::kDots; ++h) {
      constexpr int64_t kDotSteps = kSteps / Format::kDots;
      typename V::Int dot[kGroups][kTokens];
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const auto start = Format::start(blocks[t][i], h);
#pragma GCC unroll 8
        for (int g = 0; g < kGroups; ++g) dot[g][t] = start;
      }
#pragma GCC unroll 8
      for (int64_t step = h * kDotSteps; step < (h + 1) * kDotSteps; ++step) {
        typename V::Int operand[kGroups];
#pragma GCC unroll 8
        for (int g = 0; g < kGroups; ++g) operand[g] = V::load_int(panel + g * kPanelGroupBytes + step * 64);
#pragma GCC unroll 8
        for (int t = 0; t < kTokens; ++t) {
          const auto four = four_activations<V>(blocks[t][i], step);
#pragma GCC unroll 8
          for (int g = 0; g < kGroups; ++g) dot[g][t] = Format::dot(dot[g][t], operand[g], four);
        }
      }
#pragma GCC unroll 8
      for (int g = 0; g < kGroups; ++g) {
        const auto rows =
            load_scales<V, Format>(reinterpret_cast<const float*>(panel + g * kPanelGroupBytes + kSteps * 64));
#pragma GCC unroll 8
        for (int t = 0; t < kTokens; ++t) {
          sum[g][t] = add_dot<V, Format>(sum[g][t], dot[g][t], rows, h, blocks[t][i]);
          if (h == Format::kDots - 1) sum[g][t] = add_minima<V, Format>(sum[g][t], rows, blocks[t][i]);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) V::store(acc + t * acc_stride + g * kLanes, sum[g][t]);
  }
}

/// Part `tile` of `tiles` of the next 256 columns is brought into the cache while a tile is computed.
template <class V, class Format>
void prefetch_chunk(const PackedGroups& groups, int64_t group_count, int64_t first, int64_t tile,
                    int64_t tiles) noexcept {
  constexpr int64_t kLines = (Format::kHeaderBytes + kChunkBlocks * Format::kCodeBytes) / 64;
  for (int64_t g = 0; g < group_count; ++g) {
    const std::byte* chunk = Format::codes(groups.data + g * groups.group_bytes, first) - Format::kHeaderBytes;
    for (int64_t line = tile * kLines / tiles; line < (tile + 1) * kLines / tiles; ++line)
      V::prefetch(chunk + 64 * line);
  }
}

/// All groups of a panel for `kTokens` tokens, `kGroups` at a time, the rest by halves.
template <class V, class Format, int kGroups, int kTokens>
void int8_groups(const std::byte* panel, int64_t group, int64_t group_count, int64_t count,
                 const ActivationBlock* const* x, int64_t first, float* acc, int64_t acc_stride) noexcept {
  for (; group + kGroups <= group_count; group += kGroups) {
    int8_tile<V, Format, kGroups, kTokens>(panel + group * kPanelGroupBytes, count, x, first, acc + group * kLanes,
                                           acc_stride);
  }
  if constexpr (kGroups > 1) {
    if (group < group_count) {
      int8_groups<V, Format, kGroups / 2, kTokens>(panel, group, group_count, count, x, first, acc, acc_stride);
    }
  }
}

/// Chooses the tile for `token_count` ≤ kTokens.
template <class V, class Format, int kTokens>
void int8_tokens(const std::byte* panel, int64_t group_count, int64_t count, const ActivationBlock* const* x,
                 int64_t token_count, int64_t first, float* acc, int64_t acc_stride) noexcept {
  if (token_count == kTokens) {
    int8_groups<V, Format, V::int8_groups(kTokens), kTokens>(panel, 0, group_count, count, x, first, acc, acc_stride);
  } else if constexpr (kTokens > 1) {
    int8_tokens<V, Format, kTokens - 1>(panel, group_count, count, x, token_count, first, acc, acc_stride);
  }
}

/// The first `group_count` ≤ kPanelGroupCount groups for many tokens: 256 columns are unpacked into L1 and multiplied
/// with all tokens before the next 256.
template <class V, class Format>
void multiply_unpacked(const PackedGroups& groups, int64_t group_count, const ActivationBlock* const* x,
                       int64_t token_count, std::byte* panel, float* out, int64_t out_stride) noexcept {
  const int64_t blocks = groups.cols / kActivationBlock;
  const int64_t tiles = (token_count + V::kInt8Tokens - 1) / V::kInt8Tokens;
  for (int64_t t = 0; t < token_count; ++t) {
    for (int64_t g = 0; g < group_count; ++g) V::store(out + t * out_stride + g * kLanes, V::zero());
  }
  for (int64_t first = 0; first < blocks; first += kChunkBlocks) {
    const int64_t count = blocks - first < kChunkBlocks ? blocks - first : kChunkBlocks;
    for (int64_t g = 0; g < group_count; ++g) {
      unpack_chunk<V, Format>(groups.data + g * groups.group_bytes, groups.cols, first, count,
                              panel + g * kPanelGroupBytes);
    }
    for (int64_t tile = 0; tile < tiles; ++tile) {  // of sizes that differ by at most 1
      const int64_t t = tile * token_count / tiles;
      const int64_t end = (tile + 1) * token_count / tiles;
      prefetch_chunk<V, Format>(groups, group_count, first + kChunkBlocks, tile, tiles);
      int8_tokens<V, typename Format::Arithmetic, V::kInt8Tokens>(panel, group_count, count, x + t, end - t, first,
                                                                  out + t * out_stride, out_stride);
    }
  }
}

/// All groups for `token_count` ≤ kTokens tokens.
template <class V, class Format, int kTokens>
void stream_tokens(const PackedGroups& groups, const ActivationBlock* const* x, int64_t token_count, float* out,
                   int64_t out_stride) noexcept {
  if (token_count == kTokens) {
    constexpr int kGroups = kTokens == 1 ? kDecodeStreams : kTokens <= 4 ? Format::kStreams : 1;
    stream_all<V, Format, kGroups, kTokens>(groups, 0, x, out, out_stride);
  } else if constexpr (kTokens > 1) {
    stream_tokens<V, Format, kTokens - 1>(groups, x, token_count, out, out_stride);
  }
}

template <class V, class Format>
void multiply_int8(const PackedGroups& groups, const ActivationBlock* const* x, int64_t token_count, std::byte* panel,
                   float* out, int64_t out_stride) noexcept {
  if constexpr (Format::kStreams > 0) {
    if (token_count <= V::kStreamTokens) {
      stream_tokens<V, Format, V::kStreamTokens>(groups, x, token_count, out, out_stride);
      return;
    }
  }
  for (int64_t g = 0; g < groups.group_count; g += kPanelGroupCount) {
    const int64_t rest = groups.group_count - g;
    PackedGroups part = groups;
    part.data += g * groups.group_bytes;
    multiply_unpacked<V, Format>(part, rest < kPanelGroupCount ? rest : kPanelGroupCount, x, token_count, panel,
                                 out + g * kLanes, out_stride);
  }
}

template <class V>
void quantize_activations(const float* x, int64_t cols, ActivationBlock* blocks) noexcept {
  constexpr int32_t kInfinityBits = 0x7f800000;
  for (int64_t b = 0; b < cols / kActivationBlock; ++b, x += kActivationBlock) {
    const auto low = V::load(x), high = V::load(x + kLanes);
    const auto magnitude = [](auto value) { return V::bit_and(V::as_int(value), 0x7fffffff); };
    // Bits of magnitudes are ordered as the numbers are, infinity and NaN above all.
    const int32_t largest_bits = V::largest(V::max_int(magnitude(low), magnitude(high)));
    float largest;
    __builtin_memcpy(&largest, &largest_bits, 4);
    const bool finite = largest_bits < kInfinityBits;
    ActivationBlock& block = blocks[b];
    if (!finite || largest < kSmallestActivation) {
      block = {.q = {},
               .scale = finite ? 0.0f : __builtin_nanf(""),
               .scaled_sum = finite ? 0.0f : __builtin_nanf(""),
               .start_q4_0 = kSumBias,
               .start_q8_0 = kSumBias,
               .half_scaled_sums = {finite ? 0.0f : __builtin_nanf(""), finite ? 0.0f : __builtin_nanf("")},
               .half_starts = {kSumBias, kSumBias}};
      continue;
    }
    const auto inverse = V::set(127.0f / largest);
    const auto q_low = V::to_int(V::mul(low, inverse)), q_high = V::to_int(V::mul(high, inverse));
    V::store_int8(block.q, q_low);
    V::store_int8(block.q + kLanes, q_high);
    const int32_t halves[2] = {V::sum(q_low), V::sum(q_high)};
    const int32_t sum = halves[0] + halves[1];
    block.scale = largest / 127.0f;
    block.scaled_sum = block.scale * static_cast<float>(sum);
    block.start_q4_0 = kSumBias - 8 * sum;
    block.start_q8_0 = kSumBias - 128 * sum;
    for (int h = 0; h < 2; ++h) {
      block.half_scaled_sums[h] = block.scale * static_cast<float>(halves[h]);
      block.half_starts[h] = kSumBias - 32 * halves[h];
    }
  }
}

}  // namespace
}  // namespace moraine::cpu

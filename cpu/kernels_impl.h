#pragma once

#include "cpu/kernels.h"
#include "cpu/kernels_absorb_impl.h"
#include "cpu/kernels_bf16_impl.h"
#include "cpu/kernels_exp.h"
#include "cpu/kernels_int8_impl.h"

// The vector kernels, written once over `V`, sixteen f32 lanes of an instruction set (kernels_avx2.cpp,
// kernels_avx512.cpp). This header is compiled with different flags in each: everything in it is in an anonymous
// namespace and it calls no function of the standard library, so that no code for one instruction set can be linked
// into another's.
//
// V provides Reg (16 f32), Int (16 int32) and static functions: zero set load store fma add sub mul div max min tree;
// load_int shift_left<n> shift_right<n> shift_right_arithmetic<n> high_half to_float; scale_by_power_of_two; nibble<n,
// offset> (bits n … n+3 as a number, minus offset); load_f16 load_u8 load_e4m3 (× 2^-8) any_e4m3_nan (64 bytes).
namespace moraine::cpu {
namespace {

template <class V>
void decode_f16(const PackedGroup& group, int64_t first_col, int64_t col_count, float* out) noexcept {
  for (int64_t col = 0; col < col_count; ++col) {
    V::store(out + col * kLanes, V::load_f16(group.data + (first_col + col) * 2 * kLanes));
  }
}

template <class V>
void decode_bf16(const PackedGroup& group, int64_t first_col, int64_t col_count, float* out) noexcept {
  const std::byte* pairs = group.data + first_col * kLanes * 2;
  for (int64_t col = 0; col < col_count; col += 2, pairs += 4 * kLanes) {
    const auto pair = V::load_int(pairs);
    V::store(out + col * kLanes, V::as_float(V::template shift_left<16>(pair)));
    if (col + 1 < col_count) V::store(out + (col + 1) * kLanes, V::as_float(V::high_half(pair)));
  }
}

/// Replaces the products of NaN bytes, which load_e4m3 takes for ±480.
inline void patch_e4m3_nans(const std::byte* bytes, int64_t count, float* out) noexcept {
  for (int64_t i = 0; i < count; ++i) {
    if ((static_cast<unsigned>(bytes[i]) & 0x7fu) == 0x7fu) out[i] = __builtin_nanf("");
  }
}

/// e4m3 bytes are f16 numbers with 2 mantissa… exponent bits moved: load_e4m3 gives the value × 2^-8 exactly, and
/// (value · 2^-8) · (scale · 2^8) is rounded once, as value · scale is, unless scale · 2^8 overflows.
template <class V>
void decode_f8_e4m3(const PackedGroup& group, int64_t first_col, int64_t col_count, float* out) noexcept {
  for (int64_t col = 0; col < col_count;) {
    const int64_t block = (first_col + col) / 128;
    const int64_t block_end = (block + 1) * 128 - first_col;
    const int64_t end = block_end < col_count ? block_end : col_count;
    const float scale = group.fp8_scales[block];
    const bool overflows = !(__builtin_fabsf(scale) < 0x1p+119f);
    const auto first = V::set(overflows ? 256.0f : scale * 256.0f);
    const auto second = V::set(overflows ? scale : 1.0f);
    const std::byte* bytes = group.data + (first_col + col) * kLanes;
    const int64_t count = end - col;
    float* block_out = out + col * kLanes;
    if (overflows) {
      for (int64_t i = 0; i < count; ++i) {
        V::store(block_out + i * kLanes, V::mul(V::mul(V::load_e4m3(bytes + i * kLanes), first), second));
      }
    } else {
      for (int64_t i = 0; i < count; ++i)
        V::store(block_out + i * kLanes, V::mul(V::load_e4m3(bytes + i * kLanes), first));
    }
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) {
      if (V::any_e4m3_nan(bytes + i * kLanes)) patch_e4m3_nans(bytes + i * kLanes, 4 * kLanes, block_out + i * kLanes);
    }
    patch_e4m3_nans(bytes + i * kLanes, (count - i) * kLanes, block_out + i * kLanes);
    col = end;
  }
}

template <class V>
void decode_q8_0(const PackedGroup& group, int64_t first_col, int64_t col_count, float* out) noexcept {
  const std::byte* quads = group.data + first_col * kLanes;
  const std::byte* scales = group.data + group.cols * kLanes + first_col / 32 * kLanes * 2;
  for (int64_t col = 0; col < col_count; col += 32, scales += 2 * kLanes) {
    const auto scale = V::load_f16(scales);
    for (int64_t quad = 0; quad < 8; ++quad, quads += 4 * kLanes, out += 4 * kLanes) {
      const auto q = V::load_int(quads);
      const auto store = [&](int64_t i, auto number) {
        V::store(out + i * kLanes, V::mul(scale, V::to_float(number)));
      };
      store(0, V::template shift_right_arithmetic<24>(V::template shift_left<24>(q)));
      store(1, V::template shift_right_arithmetic<24>(V::template shift_left<16>(q)));
      store(2, V::template shift_right_arithmetic<24>(V::template shift_left<8>(q)));
      store(3, V::template shift_right_arithmetic<24>(q));
    }
  }
}

/// Eight columns from the 64 bytes at `quads`, each number passed through `finish`.
template <class V, int kOffset, class Finish>
void decode_nibbles(const std::byte* quads, float* out, Finish finish) noexcept {
  const auto q = V::load_int(quads);
  V::store(out + 0 * kLanes, finish(V::template nibble<0, kOffset>(q)));
  V::store(out + 1 * kLanes, finish(V::template nibble<8, kOffset>(q)));
  V::store(out + 2 * kLanes, finish(V::template nibble<16, kOffset>(q)));
  V::store(out + 3 * kLanes, finish(V::template nibble<24, kOffset>(q)));
  V::store(out + 4 * kLanes, finish(V::template nibble<4, kOffset>(q)));
  V::store(out + 5 * kLanes, finish(V::template nibble<12, kOffset>(q)));
  V::store(out + 6 * kLanes, finish(V::template nibble<20, kOffset>(q)));
  V::store(out + 7 * kLanes, finish(V::template nibble<28, kOffset>(q)));
}

template <class V>
void decode_q4_0(const PackedGroup& group, int64_t first_col, int64_t col_count, float* out) noexcept {
  const std::byte* quads = group.data + first_col / 2 * kLanes;
  const std::byte* scales = group.data + group.cols / 2 * kLanes + first_col / 32 * kLanes * 2;
  for (int64_t col = 0; col < col_count; col += 32, scales += 2 * kLanes) {
    const auto scale = V::load_f16(scales);
    for (int64_t quad = 0; quad < 4; ++quad, quads += 4 * kLanes, out += 8 * kLanes) {
      decode_nibbles<V, 8>(quads, out, [&](auto number) { return V::mul(scale, number); });
    }
  }
}

template <class V>
void decode_q4_k(const PackedGroup& group, int64_t first_col, int64_t col_count, float* out) noexcept {
  constexpr int64_t kBlockBytes = 2 * 32 + 12 * kLanes + 128 * kLanes;
  for (int64_t col = 0; col < col_count; col += 32) {
    const std::byte* block = group.data + (first_col + col) / 256 * kBlockBytes;
    const int64_t sub = (first_col + col) % 256 / 32;
    const std::byte* packed = block + 64;  // [12][16] bytes
    const auto at = [&](int64_t i) { return V::load_u8(packed + i * kLanes); };
    auto scale_bits = at(sub), minimum_bits = at(sub + 4);
    if (sub < 4) {
      scale_bits = V::bit_and(scale_bits, 63);
      minimum_bits = V::bit_and(minimum_bits, 63);
    } else {
      const auto low = at(sub + 4);
      minimum_bits =
          V::bit_or(V::template shift_right<4>(low), V::template shift_left<4>(V::template shift_right<6>(at(sub))));
      scale_bits = V::bit_or(V::bit_and(low, 15), V::template shift_left<4>(V::template shift_right<6>(at(sub - 4))));
    }
    const auto scale = V::mul(V::load_f16(block), V::to_float(scale_bits));
    const auto minimum = V::mul(V::load_f16(block + 32), V::to_float(minimum_bits));
    const std::byte* quads = packed + 12 * kLanes + sub * 4 * 4 * kLanes;
    for (int64_t quad = 0; quad < 4; ++quad, quads += 4 * kLanes, out += 8 * kLanes) {
      decode_nibbles<V, 0>(quads, out, [&](auto number) { return V::sub(V::mul(scale, number), minimum); });
    }
  }
}

/// The block formats that have no decoder of their own, by what their int8 kernels know of them: exact, because a
/// product of scales and small integers is rounded only once.
template <class V, class Format>
void decode_format(const PackedGroup& group, int64_t first_col, int64_t col_count, float* out) noexcept {
  typename Format::ChunkScales chunk;
  for (int64_t col = 0; col < col_count; col += kBlockColumns, out += kBlockColumns * kLanes) {
    const int64_t block = (first_col + col) / kBlockColumns;
    const int64_t i = block % kChunkBlocks;
    if (col == 0 || i == 0) Format::open_chunk(group.data, group.cols, block - i, chunk);
    typename V::Int operands[kSteps];
    Format::operands(Format::codes(group.data, block), chunk, i, operands);
    const auto rows = Format::scales(chunk, i);
    for (int64_t step = 0; step < kSteps; ++step) {
      const auto scale = rows.scale[step * Format::kDots / kSteps];
      const auto store = [&](int64_t byte, auto number) {
        auto weight = V::mul(scale, number);
        if constexpr (Format::kMinima > 0) {
          weight = V::add(weight, rows.minus_minimum[step * Format::kMinima / kSteps]);
        }
        V::store(out + (4 * step + byte) * kLanes, weight);
      };
      store(0, Format::template number<0>(operands[step]));
      store(1, Format::template number<1>(operands[step]));
      store(2, Format::template number<2>(operands[step]));
      store(3, Format::template number<3>(operands[step]));
    }
  }
}

/// `kGroups` groups × `kTokens` tokens with all accumulators in registers.
template <class V, int kGroups, int kTokens>
void multiply_tile(const Panel& panel, int64_t group, const float* x, int64_t x_stride, int64_t k_count, float* acc,
                   int64_t acc_stride) noexcept {
  const float* data = panel.data + group * panel.group_stride;
  typename V::Reg sum[kGroups][kTokens];
#pragma GCC unroll 16
  for (int g = 0; g < kGroups; ++g) {
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) sum[g][t] = V::load(acc + t * acc_stride + g * kLanes);
  }
  for (int64_t k = 0; k < k_count; ++k) {
    typename V::Reg weights[kGroups];
#pragma GCC unroll 16
    for (int g = 0; g < kGroups; ++g) {
      const float* at = data + g * panel.group_stride + k * panel.k_stride;
      if (panel.ahead > 0) V::prefetch(reinterpret_cast<const std::byte*>(at + panel.ahead));
      weights[g] = V::load(at);
    }
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const auto value = V::set(x[t * x_stride + k]);
#pragma GCC unroll 16
      for (int g = 0; g < kGroups; ++g) sum[g][t] = V::fma(weights[g], value, sum[g][t]);
    }
  }
#pragma GCC unroll 16
  for (int g = 0; g < kGroups; ++g) {
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) V::store(acc + t * acc_stride + g * kLanes, sum[g][t]);
  }
}

/// All groups for `kTokens` tokens, `kGroups` at a time, the rest by halves.
template <class V, int kGroups, int kTokens>
void multiply_groups(const Panel& panel, int64_t group, const float* x, int64_t x_stride, int64_t k_count, float* acc,
                     int64_t acc_stride) noexcept {
  for (; group + kGroups <= panel.group_count; group += kGroups) {
    multiply_tile<V, kGroups, kTokens>(panel, group, x, x_stride, k_count, acc + group * kLanes, acc_stride);
  }
  if constexpr (kGroups > 1) {
    if (group < panel.group_count) {
      multiply_groups<V, kGroups / 2, kTokens>(panel, group, x, x_stride, k_count, acc, acc_stride);
    }
  }
}

/// Chooses the tile for `token_count` ≤ kTokens.
template <class V, int kTokens>
void multiply_tokens(const Panel& panel, const float* x, int64_t x_stride, int64_t token_count, int64_t k_count,
                     float* acc, int64_t acc_stride) noexcept {
  if (token_count == kTokens) {
    multiply_groups<V, V::tile_groups(kTokens), kTokens>(panel, 0, x, x_stride, k_count, acc, acc_stride);
  } else if constexpr (kTokens > 1) {
    multiply_tokens<V, kTokens - 1>(panel, x, x_stride, token_count, k_count, acc, acc_stride);
  }
}

template <class V>
void multiply(const Panel& panel, const float* x, int64_t x_stride, int64_t token_count, int64_t k_count, float* acc,
              int64_t acc_stride) noexcept {
  for (int64_t t = 0; t < token_count; t += V::kTileTokens) {
    const int64_t count = token_count - t < V::kTileTokens ? token_count - t : V::kTileTokens;
    multiply_tokens<V, V::kTileTokens>(panel, x + t * x_stride, x_stride, count, k_count, acc + t * acc_stride,
                                       acc_stride);
  }
}

template <class V>
void combine_rows(const Panel& panel, const float* weights, int64_t weights_stride, int64_t token_count,
                  int64_t k_count, float* out, int64_t out_stride) noexcept {
  constexpr int kColumns = V::kTreeColumns;
  for (int64_t t = 0; t < token_count; ++t) {
    const float* token_weights = weights + t * weights_stride;
    int64_t k = 0;
    for (; k + kColumns <= k_count; k += kColumns) {
      typename V::Reg sum[kColumns];
#pragma GCC unroll 16
      for (int i = 0; i < kColumns; ++i) sum[i] = V::zero();
      for (int64_t g = 0; g < panel.group_count; ++g) {
        const auto weight = V::load(token_weights + g * kLanes);
        const float* rows = panel.data + g * panel.group_stride + k * panel.k_stride;
#pragma GCC unroll 16
        for (int i = 0; i < kColumns; ++i) sum[i] = V::fma(V::load(rows + i * panel.k_stride), weight, sum[i]);
      }
      V::store_trees(out + t * out_stride + k, sum);
    }
    for (; k < k_count; ++k) {
      auto sum = V::zero();
      for (int64_t g = 0; g < panel.group_count; ++g) {
        sum = V::fma(V::load(panel.data + g * panel.group_stride + k * panel.k_stride),
                     V::load(token_weights + g * kLanes), sum);
      }
      out[t * out_stride + k] = V::tree(sum);
    }
  }
}

/// exp, see kernels_exp.h.
template <class V>
typename V::Reg exp_of(typename V::Reg x) noexcept {
  x = V::max(V::set(kExpLowest), x);
  x = V::min(V::set(kExpHighest), x);
  const auto t = V::fma(x, V::set(kLog2E), V::set(kExpMagic));
  auto r = V::sub(t, V::set(kExpMagic));
  r = V::fma(r, V::set(-kLn2Low), V::fma(r, V::set(-kLn2High), x));
  auto p = V::set(kExpC7);
  p = V::fma(p, r, V::set(kExpC6));
  p = V::fma(p, r, V::set(kExpC5));
  p = V::fma(p, r, V::set(kExpC4));
  p = V::fma(p, r, V::set(kExpC3));
  p = V::fma(p, r, V::set(kExpC2));
  p = V::fma(p, r, V::set(1.0f));
  p = V::fma(p, r, V::set(1.0f));
  return V::scale_by_power_of_two(p, V::subtract(V::as_int(t), static_cast<int32_t>(kExpMagicBits)));
}

/// The first `count` < 16 floats, the other lanes zero.
template <class V>
typename V::Reg load_first(const float* from, int64_t count) noexcept {
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i] = from[i];
  return V::load(lanes);
}

template <class V>
void store_first(float* to, int64_t count, typename V::Reg value) noexcept {
  float lanes[kLanes];
  V::store(lanes, value);
  for (int64_t i = 0; i < count; ++i) to[i] = lanes[i];
}

template <class V>
void rms_norm(const float* x, const float* w, int64_t n, float eps, float* y) noexcept {
  auto sum = V::zero();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const auto value = V::load(x + i);
    sum = V::fma(value, value, sum);
  }
  if (i < n) {
    const auto value = load_first<V>(x + i, n - i);
    sum = V::fma(value, value, sum);
  }
  const float mean = V::tree(sum) / static_cast<float>(n) + eps;
  const auto r = V::set(1.0f / V::square_root(mean));
  for (i = 0; i + kLanes <= n; i += kLanes) V::store(y + i, V::mul(V::mul(V::load(x + i), r), V::load(w + i)));
  if (i < n) {
    store_first<V>(y + i, n - i, V::mul(V::mul(load_first<V>(x + i, n - i), r), load_first<V>(w + i, n - i)));
  }
}

template <class V>
void silu_multiply(const float* gate, const float* up, int64_t n, float* out) noexcept {
  const auto silu = [](auto z, auto factor) {
    return V::mul(V::div(z, V::add(V::set(1.0f), exp_of<V>(V::negate(z)))), factor);
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) V::store(out + i, silu(V::load(gate + i), V::load(up + i)));
  if (i < n) store_first<V>(out + i, n - i, silu(load_first<V>(gate + i, n - i), load_first<V>(up + i, n - i)));
}

template <class V>
float softmax_step(float* scores, int64_t n, float scale, SoftmaxState& state) noexcept {
  const auto factor = V::set(scale);
  auto largest = V::set(state.max);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const auto score = V::mul(V::load(scores + i), factor);
    V::store(scores + i, score);
    largest = V::max(score, largest);
  }
  float lanes[kLanes];
  V::store(lanes, largest);
  float max = state.max;
  for (const float lane : lanes) max = lane > max ? lane : max;
  for (int64_t j = i; j < n; ++j) {
    scores[j] *= scale;
    max = scores[j] > max ? scores[j] : max;
  }
  const auto shift = V::set(max);
  auto sum = V::zero();
  for (i = 0; i + kLanes <= n; i += kLanes) {
    const auto p = exp_of<V>(V::sub(V::load(scores + i), shift));
    V::store(scores + i, p);
    sum = V::add(sum, p);
  }
  if (i < n) {
    store_first<V>(scores + i, n - i, exp_of<V>(V::sub(load_first<V>(scores + i, n - i), shift)));
    sum = V::add(sum, load_first<V>(scores + i, n - i));
  }
  V::store(lanes, exp_of<V>(V::set(state.max - max)));
  const float rescale = lanes[0];
  state.sum = state.sum * rescale + V::tree(sum);
  state.max = max;
  return rescale;
}

template <class V>
constexpr KernelTable make_table(const char* name) noexcept {
  return {
      .name = name,
      .decode_f16 = decode_f16<V>,
      .decode_bf16 = decode_bf16<V>,
      .decode_f8_e4m3 = decode_f8_e4m3<V>,
      .decode_q8_0 = decode_q8_0<V>,
      .decode_q4_0 = decode_q4_0<V>,
      .decode_q4_1 = decode_format<V, FormatQ4_1<V>>,
      .decode_q5_0 = decode_format<V, FormatQ5_0<V>>,
      .decode_q5_1 = decode_format<V, FormatQ5_1<V>>,
      .decode_q2_k = decode_format<V, FormatQ2_K<V>>,
      .decode_q3_k = decode_format<V, FormatQ3_K<V>>,
      .decode_q4_k = decode_q4_k<V>,
      .decode_q5_k = decode_format<V, FormatQ5_K<V>>,
      .decode_q6_k = decode_format<V, FormatQ6_K<V>>,
      .decode_iq4_nl = decode_format<V, FormatIQ4_NL<V>>,
      .decode_iq4_xs = decode_format<V, FormatIQ4_XS<V>>,
      .decode_iq3_xxs = decode_format<V, GridBlocks<V, quant::BlockIQ3_XXS>>,
      .decode_iq3_s = decode_format<V, GridBlocks<V, quant::BlockIQ3_S>>,
      .decode_iq2_xxs = decode_format<V, GridBlocks<V, quant::BlockIQ2_XXS>>,
      .decode_iq2_xs = decode_format<V, GridBlocks<V, quant::BlockIQ2_XS>>,
      .decode_iq2_s = decode_format<V, GridBlocks<V, quant::BlockIQ2_S>>,
      .decode_iq1_s = decode_format<V, GridBlocks<V, quant::BlockIQ1_S>>,
      .decode_iq1_m = decode_format<V, GridBlocks<V, quant::BlockIQ1_M>>,
      .int8_q8_0 = int8_format<V, FormatQ8_0<V>>(),
      .int8_q4_0 = int8_format<V, FormatQ4_0<V>>(),
      .int8_q4_1 = int8_format<V, FormatQ4_1<V>>(),
      .int8_q5_0 = int8_format<V, FormatQ5_0<V>>(),
      .int8_q5_1 = int8_format<V, FormatQ5_1<V>>(),
      .int8_q2_k = int8_format<V, FormatQ2_K<V>>(),
      .int8_q3_k = int8_format<V, FormatQ3_K<V>>(),
      .int8_q4_k = int8_format<V, FormatQ4_K<V>>(),
      .int8_q5_k = int8_format<V, FormatQ5_K<V>>(),
      .int8_q6_k = int8_format<V, FormatQ6_K<V>>(),
      .int8_iq4_nl = int8_format<V, FormatIQ4_NL<V>>(),
      .int8_iq4_xs = int8_format<V, FormatIQ4_XS<V>>(),
      .int8_iq3_xxs = int8_format<V, GridBlocks<V, quant::BlockIQ3_XXS>>(),
      .int8_iq3_s = int8_format<V, GridBlocks<V, quant::BlockIQ3_S>>(),
      .int8_iq2_xxs = int8_format<V, GridBlocks<V, quant::BlockIQ2_XXS>>(),
      .int8_iq2_xs = int8_format<V, GridBlocks<V, quant::BlockIQ2_XS>>(),
      .int8_iq2_s = int8_format<V, GridBlocks<V, quant::BlockIQ2_S>>(),
      .int8_iq1_s = int8_format<V, GridBlocks<V, quant::BlockIQ1_S>>(),
      .int8_iq1_m = int8_format<V, GridBlocks<V, quant::BlockIQ1_M>>(),
      .int8_stream_rows = V::kStreamRows,
      .int8_multiply = int8_multiply<V, false>,
      .int8_multiply_minima = int8_multiply<V, true>,
      .quantize_activations = quantize_activations<V>,
      .multiply = multiply<V>,
      .combine_rows = combine_rows<V>,
      .rms_norm = rms_norm<V>,
      .silu_multiply = silu_multiply<V>,
      .softmax_step = softmax_step<V>,
      .bf16 = {.round = bf16_round<V>,
               .pair_rows = bf16_pair_rows<V>,
               .pair_f32_rows = bf16_pair_f32_rows<V>,
               .multiply = bf16_multiply<V>,
               .rescale = bf16_rescale<V>,
               .softmax = bf16_softmax<V>,
               .absorb_q8_0 = absorb<V, FormatQ8_0<V>>,
               .absorb_q4_0 = absorb<V, FormatQ4_0<V>>,
               .absorb_q4_k = absorb<V, FormatQ4_K<V>>},
  };
}

}  // namespace
}  // namespace moraine::cpu

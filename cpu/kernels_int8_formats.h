#pragma once

#include <type_traits>

#include "cpu/kernels.h"
#include "quant/block_formats.h"
#include "quant/dequantize.h"
#include "quant/grid_octets.h"

// The block formats as the int8 kernels see them: one struct per format, over the lanes `V` of kernels_int8_impl.h.
namespace moraine::cpu {
namespace {

constexpr int64_t kSteps = kBlockColumns / 4;  // operands of 16 rows × 4 columns in a block of 32 columns
constexpr int64_t kChunkBlocks = 8;            // blocks whose weights are unpacked at a time: 256 columns

/// The scales of 16 rows for 32 columns: of `kDots` integer dot products, and `kMinima` minima.
template <class V, int kDots, int kMinima>
struct RowScales {
  typename V::Reg scale[kDots];
  typename V::Reg minus_minimum[kMinima > 0 ? kMinima : 1];
};

template <class V>
inline typename V::Reg magnitude(typename V::Reg a) noexcept {
  return V::as_float(V::bit_and(V::as_int(a), 0x7fffffff));
}

// ---- What operands stand for ----------------------------------------------------------------------------------------
// kDots scales per 32 columns (2: of 16 columns each), kMinima minima; number<j>(): byte j of an operand as the number
// that it stands for; dot(): adds 4 products of bytes, to be corrected by kOffset · Σ of what they are multiplied with.

/// Integers −128 … 127.
template <class V>
struct SignedBytes {
  using Reg = typename V::Reg;
  using Int = typename V::Int;
  static constexpr bool kSigned = true;
  static constexpr int kDots = 1;
  static constexpr int kMinima = 0;
  static constexpr int32_t kOffset = V::kSignedOffset;
  using Scales = RowScales<V, kDots, kMinima>;

  static Int dot(Int sum, Int operand, Int x) { return V::dot4_signed(sum, operand, x); }
  template <int j>
  static Reg number(Int operand) {
    return V::to_float(V::template shift_right_arithmetic<24>(V::template shift_left<24 - 8 * j>(operand)));
  }
};

/// Codes that stand for themselves less kZero, with kDotCount scales and kMinimumCount minima per 32 columns. No number
/// is beyond ±kLargestCode, nor is kZero.
template <class V, int kDotCount, int kMinimumCount, int kZero, int kLargestCode>
struct Codes {
  using Reg = typename V::Reg;
  using Int = typename V::Int;
  static constexpr bool kSigned = false;
  static constexpr int kDots = kDotCount;
  static constexpr int kMinima = kMinimumCount;
  static constexpr int32_t kOffset = kZero;
  static constexpr int kLargest = kLargestCode;
  using Scales = RowScales<V, kDots, kMinima>;
  static_assert(kZero <= kLargestCode);

  static Int dot(Int sum, Int operand, Int x) { return V::dot4(sum, operand, x); }
  template <int j>
  static Reg number(Int operand) {
    return V::to_float(V::subtract(V::bit_and(V::template shift_right<8 * j>(operand), 255), kZero));
  }
};

// ---- Parts of the packed order (quant/packed_matrix.h) → operands ---------------------------------------------------

/// Two operands from each 64 bytes of nibbles (part N).
template <class V>
inline void nibble_operands(const std::byte* codes, typename V::Int (&out)[kSteps]) noexcept {
#pragma GCC unroll 4
  for (int64_t i = 0; i < kSteps / 2; ++i) {
    const auto pairs = V::load_int(codes + i * 4 * kLanes);
    out[2 * i] = V::bit_and(pairs, 0x0f0f0f0f);
    out[2 * i + 1] = V::bit_and(V::template shift_right<4>(pairs), 0x0f0f0f0f);
  }
}

/// Shifted left by n, or right by −n.
template <class V, int n>
inline typename V::Int moved(typename V::Int a) noexcept {
  if constexpr (n > 0) return V::template shift_left<n>(a);
  if constexpr (n < 0) return V::template shift_right<-n>(a);
  return a;
}

/// Bit `from` of every byte of `bits` as bit `to`.
template <class V, int from, int to>
inline typename V::Int one_bit(typename V::Int bits) noexcept {
  return V::bit_and(moved<V, to - from>(bits), 0x01010101 << to);
}

/// Adds part B, as bit `to` of all operands.
template <class V, int to>
inline void add_ones(const std::byte* ones, typename V::Int (&out)[kSteps]) noexcept {
  const auto bits = V::load_int(ones);
  out[0] = V::bit_or(out[0], one_bit<V, 0, to>(bits));
  out[1] = V::bit_or(out[1], one_bit<V, 1, to>(bits));
  out[2] = V::bit_or(out[2], one_bit<V, 2, to>(bits));
  out[3] = V::bit_or(out[3], one_bit<V, 3, to>(bits));
  out[4] = V::bit_or(out[4], one_bit<V, 4, to>(bits));
  out[5] = V::bit_or(out[5], one_bit<V, 5, to>(bits));
  out[6] = V::bit_or(out[6], one_bit<V, 6, to>(bits));
  out[7] = V::bit_or(out[7], one_bit<V, 7, to>(bits));
}

/// Part P as bits `to` and `to` + 1 of operands that have nothing else.
template <class V, int to>
inline void pair_operands(const std::byte* twos, typename V::Int (&out)[kSteps]) noexcept {
  constexpr int32_t kMask = 0x03030303 << to;
#pragma GCC unroll 2
  for (int64_t q = 0; q < 2; ++q) {
    const auto pairs = V::load_int(twos + q * 4 * kLanes);
    out[4 * q] = V::bit_and(moved<V, to>(pairs), kMask);
    out[4 * q + 1] = V::bit_and(moved<V, to - 2>(pairs), kMask);
    out[4 * q + 2] = V::bit_and(moved<V, to - 4>(pairs), kMask);
    out[4 * q + 3] = V::bit_and(moved<V, to - 6>(pairs), kMask);
  }
}

// ---- The formats ----------------------------------------------------------------------------------------------------
// What differs between them: where 32 columns of a group lie, their scales and their operands. open_chunk() reads what
// 256 columns have in common. kIntegerScales: integer_scale(), minima() and the chunk's d and dmin are used as they
// are. kStreamed: few tokens take the weights as they come from memory. kTailBytes: of the f16 numbers behind all codes
// of a group, per 32 columns.

/// Formats of 32 columns: kCodeBytes of codes per block, then per block the f16 numbers of 16 rows: d, or d and m.
template <class V, class Multiply, int64_t kBytes>
struct SmallBlocks : Multiply {
  using Reg = typename V::Reg;
  using Int = typename V::Int;
  static constexpr bool kIntegerScales = false;
  static constexpr bool kStreamed = true;
  static constexpr int64_t kHeaderBytes = 0;
  static constexpr int64_t kCodeBytes = kBytes * kLanes;
  static constexpr int64_t kScaleBytes = (1 + Multiply::kMinima) * 2 * kLanes;
  static constexpr int64_t kTailBytes = kScaleBytes;
  struct ChunkScales {
    const std::byte* scales;
  };

  static void open_chunk(const std::byte* group, int64_t cols, int64_t block, ChunkScales& chunk) {
    chunk.scales = group + cols / kBlockColumns * kCodeBytes + block * kScaleBytes;
  }
  static const std::byte* codes(const std::byte* group, int64_t block) { return group + block * kCodeBytes; }
  static typename Multiply::Scales scales(const ChunkScales& chunk, int64_t i) {
    const std::byte* at = chunk.scales + i * kScaleBytes;
    const Reg scale = V::load_f16(at);
    if constexpr (Multiply::kMinima == 0) {
      return {{scale}, {V::zero()}};
    } else {
      return {{scale}, {V::load_f16(at + 2 * kLanes)}};
    }
  }
};

template <class V>
struct FormatQ8_0 : SmallBlocks<V, SignedBytes<V>, 32> {
  using Int = typename V::Int;
  using ChunkScales = typename SmallBlocks<V, SignedBytes<V>, 32>::ChunkScales;
  static void operands(const std::byte* codes, const ChunkScales& /*chunk*/, int64_t /*i*/, Int (&out)[kSteps]) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < kSteps; ++i) out[i] = V::load_int(codes + i * 4 * kLanes);
  }
};

template <class V>
struct FormatQ4_0 : SmallBlocks<V, Codes<V, 1, 0, 8, 8>, 16> {
  using Int = typename V::Int;
  using ChunkScales = typename SmallBlocks<V, Codes<V, 1, 0, 8, 8>, 16>::ChunkScales;
  static void operands(const std::byte* codes, const ChunkScales& /*chunk*/, int64_t /*i*/, Int (&out)[kSteps]) {
    nibble_operands<V>(codes, out);
  }
};

template <class V>
struct FormatQ4_1 : SmallBlocks<V, Codes<V, 1, 1, 0, 15>, 16> {
  using Int = typename V::Int;
  using ChunkScales = typename SmallBlocks<V, Codes<V, 1, 1, 0, 15>, 16>::ChunkScales;
  static void operands(const std::byte* codes, const ChunkScales& /*chunk*/, int64_t /*i*/, Int (&out)[kSteps]) {
    nibble_operands<V>(codes, out);
  }
};

/// Operands are 8·(code − 16), the scale an eighth: every product is the same.
template <class V>
struct FormatQ5_0 : SmallBlocks<V, SignedBytes<V>, 20> {
  using Base = SmallBlocks<V, SignedBytes<V>, 20>;
  using Reg = typename V::Reg;
  using Int = typename V::Int;
  using ChunkScales = typename Base::ChunkScales;
  static void operands(const std::byte* codes, const ChunkScales& /*chunk*/, int64_t /*i*/, Int (&out)[kSteps]) {
    nibble_operands<V>(codes, out);
#pragma GCC unroll 8
    for (int64_t i = 0; i < kSteps; ++i) out[i] = V::template shift_left<3>(out[i]);
    add_ones<V, 7>(codes + 16 * kLanes, out);
#pragma GCC unroll 8
    for (int64_t i = 0; i < kSteps; ++i) out[i] = V::flip_signs(out[i]);
  }
  static typename Base::Scales scales(const ChunkScales& chunk, int64_t i) {
    const Reg scale = V::mul(V::load_f16(chunk.scales + i * Base::kScaleBytes), V::set(0.125f));
    return {{scale}, {V::zero()}};
  }
};

template <class V>
struct FormatQ5_1 : SmallBlocks<V, Codes<V, 1, 1, 0, 31>, 20> {
  using Int = typename V::Int;
  using ChunkScales = typename SmallBlocks<V, Codes<V, 1, 1, 0, 31>, 20>::ChunkScales;
  static void operands(const std::byte* codes, const ChunkScales& /*chunk*/, int64_t /*i*/, Int (&out)[kSteps]) {
    nibble_operands<V>(codes, out);
    add_ones<V, 4>(codes + 16 * kLanes, out);
  }
};

/// Codes looked up in kIq4Values.
template <class V>
inline void iq4_operands(const std::byte* codes, typename V::Int (&out)[kSteps]) noexcept {
  nibble_operands<V>(codes, out);
#pragma GCC unroll 8
  for (int64_t i = 0; i < kSteps; ++i) out[i] = V::look_up(quant::kIq4Values, out[i]);
}

template <class V>
struct FormatIQ4_NL : SmallBlocks<V, SignedBytes<V>, 16> {
  using Int = typename V::Int;
  using ChunkScales = typename SmallBlocks<V, SignedBytes<V>, 16>::ChunkScales;
  static void operands(const std::byte* codes, const ChunkScales& /*chunk*/, int64_t /*i*/, Int (&out)[kSteps]) {
    iq4_operands<V>(codes, out);
  }
};

/// Formats of 256 columns: super-blocks of a header and 8 blocks of codes.
template <class V, class Multiply, int64_t kHeader, int64_t kBytes>
struct SuperBlocks : Multiply {
  static constexpr bool kIntegerScales = false;
  static constexpr bool kStreamed = true;
  static constexpr int64_t kHeaderBytes = kHeader * kLanes;
  static constexpr int64_t kCodeBytes = kBytes * kLanes;
  static constexpr int64_t kSuperBytes = kHeaderBytes + kChunkBlocks * kCodeBytes;
  static constexpr int64_t kTailBytes = 0;
  static_assert(kChunkBlocks * kBlockColumns == 256 && kSuperBytes % 64 == 0);

  static const std::byte* super(const std::byte* group, int64_t block) {
    return group + block / kChunkBlocks * kSuperBytes;
  }
  static const std::byte* codes(const std::byte* group, int64_t block) {
    return super(group, block) + kHeaderBytes + block % kChunkBlocks * kCodeBytes;
  }
  /// The f16 d of a format that keeps them behind the last super-block.
  static typename V::Reg d_at_end(const std::byte* group, int64_t cols, int64_t block) {
    return V::load_f16(group + cols / 256 * kSuperBytes + block / kChunkBlocks * 2 * kLanes);
  }
};

/// Q4_K and Q5_K: header d, dmin, 12 bytes of scales and minima.
template <class V, int64_t kBytes, int kLargestCode>
struct ScaleMinBlocks : SuperBlocks<V, Codes<V, 1, 1, 0, kLargestCode>, 16, kBytes> {
  using Base = SuperBlocks<V, Codes<V, 1, 1, 0, kLargestCode>, 16, kBytes>;
  using Reg = typename V::Reg;
  using Int = typename V::Int;
  static constexpr bool kIntegerScales = true;
  struct ChunkScales {
    Reg d, dmin;
    alignas(64) std::byte bits[16 * kLanes];  // [8 scales, 8 minima][16 rows], 6 bits each
  };

  /// GGUF's packing of 8 scales and 8 minima into 12 bytes, undone for four of them in all rows at a time.
  static void open_chunk(const std::byte* group, int64_t /*cols*/, int64_t block, ChunkScales& chunk) {
    const std::byte* super = Base::super(group, block);
    chunk.d = V::load_f16(super);
    chunk.dmin = V::load_f16(super + 2 * kLanes);
    const Int first = V::load_int(super + 4 * kLanes);  // bytes 0–3 of the 12
    const Int second = V::load_int(super + 8 * kLanes);
    const Int third = V::load_int(super + 12 * kLanes);
    const auto high_bits = [](Int bytes) { return V::bit_and(V::template shift_right<2>(bytes), 0x30303030); };
    V::store_int(chunk.bits, V::bit_and(first, 0x3f3f3f3f));
    V::store_int(chunk.bits + 4 * kLanes, V::bit_or(V::bit_and(third, 0x0f0f0f0f), high_bits(first)));
    V::store_int(chunk.bits + 8 * kLanes, V::bit_and(second, 0x3f3f3f3f));
    V::store_int(chunk.bits + 12 * kLanes,
                 V::bit_or(V::bit_and(V::template shift_right<4>(third), 0x0f0f0f0f), high_bits(second)));
  }
  static typename Base::Scales scales(const ChunkScales& chunk, int64_t i) {
    const Reg scale = V::mul(chunk.d, V::to_float(V::load_u8(chunk.bits + i * kLanes)));
    const Reg minimum = V::mul(chunk.dmin, V::to_float(V::load_u8(chunk.bits + (8 + i) * kLanes)));
    return {{scale}, {V::negate(minimum)}};
  }
  static Int integer_scale(const ChunkScales& chunk, int64_t i) { return V::load_u8(chunk.bits + i * kLanes); }
  /// Minima of blocks 2·pair and 2·pair + 1 in the halves of a lane.
  static Int minima(const ChunkScales& chunk, int64_t pair) {
    const std::byte* first = chunk.bits + (8 + 2 * pair) * kLanes;
    return V::bit_or(V::load_u8(first), V::template shift_left<16>(V::load_u8(first + kLanes)));
  }
};

template <class V>
struct FormatQ4_K : ScaleMinBlocks<V, 16, 15> {
  using Int = typename V::Int;
  using ChunkScales = typename ScaleMinBlocks<V, 16, 15>::ChunkScales;
  static void operands(const std::byte* codes, const ChunkScales& /*chunk*/, int64_t /*i*/, Int (&out)[kSteps]) {
    nibble_operands<V>(codes, out);
  }
};

template <class V>
struct FormatQ5_K : ScaleMinBlocks<V, 20, 31> {
  using Int = typename V::Int;
  using ChunkScales = typename ScaleMinBlocks<V, 20, 31>::ChunkScales;
  static void operands(const std::byte* codes, const ChunkScales& /*chunk*/, int64_t /*i*/, Int (&out)[kSteps]) {
    nibble_operands<V>(codes, out);
    add_ones<V, 4>(codes + 16 * kLanes, out);
  }
};

/// Q2_K: groups of 16, but scale · code is at most 45: with it as operand there is one sum of 32 columns, of scale d.
template <class V>
struct FormatQ2_K : SuperBlocks<V, Codes<V, 1, 2, 0, 45>, 20, 8> {
  using Base = SuperBlocks<V, Codes<V, 1, 2, 0, 45>, 20, 8>;
  using Reg = typename V::Reg;
  using Int = typename V::Int;
  struct ChunkScales {
    Reg d, minus_dmin;
    const std::byte* bits;  // [16 groups][16 rows]: scale, minimum << 4
  };

  static void open_chunk(const std::byte* group, int64_t /*cols*/, int64_t block, ChunkScales& chunk) {
    const std::byte* super = Base::super(group, block);
    chunk.d = V::load_f16(super);
    chunk.minus_dmin = V::negate(V::load_f16(super + 2 * kLanes));
    chunk.bits = super + 4 * kLanes;
  }
  static void operands(const std::byte* codes, const ChunkScales& chunk, int64_t i, Int (&out)[kSteps]) {
    pair_operands<V, 0>(codes, out);
#pragma GCC unroll 2
    for (int64_t h = 0; h < 2; ++h) {
      const Int scale = V::bit_and(V::load_u8(chunk.bits + (2 * i + h) * kLanes), 15);
      const Int both = V::bit_or(scale, V::template shift_left<16>(scale));  // in each 16-bit half of a lane
#pragma GCC unroll 4
      for (int64_t step = 4 * h; step < 4 * h + 4; ++step) out[step] = V::multiply_int16(out[step], both);
    }
  }
  static typename Base::Scales scales(const ChunkScales& chunk, int64_t i) {
    const auto minus_minimum = [&](int64_t h) {
      const Int bits = V::load_u8(chunk.bits + (2 * i + h) * kLanes);
      return V::mul(chunk.minus_dmin, V::to_float(V::template shift_right<4>(bits)));
    };
    return {{chunk.d}, {minus_minimum(0), minus_minimum(1)}};
  }
};

/// Operands are 8·code, so that the zero is 32 as for Q6_K; the scale is an eighth.
template <class V>
struct FormatQ3_K : SuperBlocks<V, Codes<V, 2, 0, 32, 32>, 12, 12> {
  using Base = SuperBlocks<V, Codes<V, 2, 0, 32, 32>, 12, 12>;
  using Reg = typename V::Reg;
  using Int = typename V::Int;
  static constexpr int64_t kTailBytes = 2 * kLanes / kChunkBlocks;
  struct ChunkScales {
    Reg d;                                    // an eighth
    alignas(64) std::byte bits[16 * kLanes];  // [16 groups][16 rows], 6 bits each
  };

  static void open_chunk(const std::byte* group, int64_t cols, int64_t block, ChunkScales& chunk) {
    const std::byte* super = Base::super(group, block);
    chunk.d = V::mul(Base::d_at_end(group, cols, block), V::set(0.125f));
    const Int first = V::load_int(super);  // bytes 0–3 of the 12
    const Int second = V::load_int(super + 4 * kLanes);
    const Int third = V::load_int(super + 8 * kLanes);
    const auto low = [](Int bytes) { return V::bit_and(bytes, 0x0f0f0f0f); };
    const auto high = [](Int bits) { return V::bit_and(bits, 0x30303030); };
    V::store_int(chunk.bits, V::bit_or(low(first), high(V::template shift_left<4>(third))));
    V::store_int(chunk.bits + 4 * kLanes, V::bit_or(low(second), high(V::template shift_left<2>(third))));
    V::store_int(chunk.bits + 8 * kLanes, V::bit_or(low(V::template shift_right<4>(first)), high(third)));
    V::store_int(chunk.bits + 12 * kLanes,
                 V::bit_or(low(V::template shift_right<4>(second)), high(V::template shift_right<2>(third))));
  }
  static void operands(const std::byte* codes, const ChunkScales& /*chunk*/, int64_t /*i*/, Int (&out)[kSteps]) {
    pair_operands<V, 3>(codes, out);
    add_ones<V, 5>(codes + 8 * kLanes, out);
  }
  static typename Base::Scales scales(const ChunkScales& chunk, int64_t i) {
    const auto scale = [&](int64_t h) {
      return V::mul(chunk.d, V::to_float(V::subtract(V::load_u8(chunk.bits + (2 * i + h) * kLanes), 32)));
    };
    const Reg first = scale(0), second = scale(1);
    return {{first, second}, {V::zero()}};
  }
};

template <class V>
struct FormatQ6_K : SuperBlocks<V, Codes<V, 2, 0, 32, 32>, 16, 24> {
  using Base = SuperBlocks<V, Codes<V, 2, 0, 32, 32>, 16, 24>;
  using Reg = typename V::Reg;
  using Int = typename V::Int;
  static constexpr int64_t kTailBytes = 2 * kLanes / kChunkBlocks;
  struct ChunkScales {
    Reg d;
    const std::byte* scales;  // [16 groups][16 rows] int8
  };

  static void open_chunk(const std::byte* group, int64_t cols, int64_t block, ChunkScales& chunk) {
    chunk.d = Base::d_at_end(group, cols, block);
    chunk.scales = Base::super(group, block);
  }
  static void operands(const std::byte* codes, const ChunkScales& /*chunk*/, int64_t /*i*/, Int (&out)[kSteps]) {
    Int high[kSteps];
    nibble_operands<V>(codes, out);
    pair_operands<V, 4>(codes + 16 * kLanes, high);
#pragma GCC unroll 8
    for (int64_t i = 0; i < kSteps; ++i) out[i] = V::bit_or(out[i], high[i]);
  }
  static typename Base::Scales scales(const ChunkScales& chunk, int64_t i) {
    const auto scale = [&](int64_t h) {
      const Int bytes = V::template shift_left<24>(V::load_u8(chunk.scales + (2 * i + h) * kLanes));
      return V::mul(chunk.d, V::to_float(V::template shift_right_arithmetic<24>(bytes)));
    };
    const Reg first = scale(0), second = scale(1);
    return {{first, second}, {V::zero()}};
  }
};

template <class V>
struct FormatIQ4_XS : SuperBlocks<V, SignedBytes<V>, 8, 16> {
  using Base = SuperBlocks<V, SignedBytes<V>, 8, 16>;
  using Reg = typename V::Reg;
  using Int = typename V::Int;
  struct ChunkScales {
    alignas(64) float scales[kChunkBlocks * kLanes];  // [8 blocks][16 rows]
  };

  template <int b>
  static void open_block(const std::byte* super, Reg d, ChunkScales& chunk) {
    const Int high = V::load_u8(super + (2 + b / 4) * kLanes);
    const Int low = V::load_u8(super + (4 + b / 2) * kLanes);
    const Int bits = V::bit_or(V::bit_and(V::template shift_right<b % 2 * 4>(low), 15),
                               V::bit_and(moved<V, 4 - b % 4 * 2>(high), 0x30));
    V::store(chunk.scales + b * kLanes, V::mul(d, V::to_float(V::subtract(bits, 32))));
  }
  static void open_chunk(const std::byte* group, int64_t /*cols*/, int64_t block, ChunkScales& chunk) {
    const std::byte* super = Base::super(group, block);
    const Reg d = V::load_f16(super);
    open_block<0>(super, d, chunk);
    open_block<1>(super, d, chunk);
    open_block<2>(super, d, chunk);
    open_block<3>(super, d, chunk);
    open_block<4>(super, d, chunk);
    open_block<5>(super, d, chunk);
    open_block<6>(super, d, chunk);
    open_block<7>(super, d, chunk);
  }
  static void operands(const std::byte* codes, const ChunkScales& /*chunk*/, int64_t /*i*/, Int (&out)[kSteps]) {
    iq4_operands<V>(codes, out);
  }
  static typename Base::Scales scales(const ChunkScales& chunk, int64_t i) {
    const Reg scale = V::load(chunk.scales + i * kLanes);
    return {{scale}, {V::zero()}};
  }
};

/// The grid formats: 16 rows' blocks side by side, whose weights are looked up eight at a time, row by row. That takes
/// longer than memory does to bring them, so that nothing is gained by taking them straight from the stream: they are
/// always unpacked first. Where 16 weights have a scale of their own, codes are 64 more than the weights.
template <class V, class Block>
struct GridBlocks : std::conditional_t<quant::kHasSixteenScales<Block>, Codes<V, 2, 0, 64, 64>, SignedBytes<V>> {
  using Base = std::conditional_t<quant::kHasSixteenScales<Block>, Codes<V, 2, 0, 64, 64>, SignedBytes<V>>;
  static constexpr bool kIntegerScales = false;
  using Reg = typename V::Reg;
  using Int = typename V::Int;
  static constexpr bool kStreamed = false;
  static constexpr int64_t kHeaderBytes = 0;
  static constexpr int64_t kCodeBytes = static_cast<int64_t>(sizeof(Block)) * kLanes / kChunkBlocks;
  struct ChunkScales {
    const Block* blocks;                                            // [16 rows]
    alignas(64) float scales[kChunkBlocks * Base::kDots * kLanes];  // [8 blocks][dots][16 rows]
  };

  static void open_chunk(const std::byte* group, int64_t /*cols*/, int64_t block, ChunkScales& chunk) {
    chunk.blocks = reinterpret_cast<const Block*>(codes(group, block));
    for (int64_t r = 0; r < kLanes; ++r) {
      const Block& row = chunk.blocks[r];
      const float d = quant::f32_from_f16(quant::grid_d(row));
      for (int i = 0; i < kChunkBlocks * Base::kDots; ++i) {
        chunk.scales[i * kLanes + r] = quant::grid_scale(row, d, i * (2 / Base::kDots));
      }
    }
  }
  static const std::byte* codes(const std::byte* group, int64_t block) { return group + block * kCodeBytes; }
  static void operands(const std::byte* /*codes*/, const ChunkScales& chunk, int64_t i, Int (&out)[kSteps]) {
    alignas(64) std::byte quads[kSteps * 4 * kLanes];  // [steps][16 rows][4]
    for (int64_t r = 0; r < kLanes; ++r) {
#pragma GCC unroll 4
      for (int octet = 0; octet < 4; ++octet) {
        uint64_t weights = quant::grid_octet(chunk.blocks[r], static_cast<int>(4 * i) + octet);
        if constexpr (Base::kDots == 2) weights = (weights & 0x7f7f7f7f7f7f7f7fu) ^ 0x4040404040404040u;
        std::byte* at = quads + (octet * 2 * kLanes + r) * 4;
        const uint64_t second = weights >> 32;
        __builtin_memcpy(at, &weights, 4);
        __builtin_memcpy(at + 4 * kLanes, &second, 4);
      }
    }
#pragma GCC unroll 8
    for (int64_t step = 0; step < kSteps; ++step) {
      out[step] = V::load_int(quads + step * 4 * kLanes);
    }
  }
  static typename Base::Scales scales(const ChunkScales& chunk, int64_t i) {
    const Reg first = V::load(chunk.scales + i * Base::kDots * kLanes);
    if constexpr (Base::kDots == 1) {
      return {{first}, {V::zero()}};
    } else {
      const Reg second = V::load(chunk.scales + (i * 2 + 1) * kLanes);
      return {{first, second}, {V::zero()}};
    }
  }
};

}  // namespace
}  // namespace moraine::cpu

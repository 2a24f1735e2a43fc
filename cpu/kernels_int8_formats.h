#pragma once

#include "cpu/kernels.h"

// The block formats as the int8 kernels see them: one struct per format, over the lanes `V` of kernels_int8_impl.h.
namespace moraine::cpu {
namespace {

constexpr int64_t kSteps = kActivationBlock / 4;  // operands of 16 rows × 4 columns in a block of 32 columns
constexpr int64_t kChunkBlocks = 8;               // blocks whose weights are unpacked at a time: 256 columns

/// The scales of 16 rows for 32 columns.
template <class V>
struct RowScales {
  typename V::Reg scale;
  typename V::Reg shift;          // −kSumBiasValue · scale
  typename V::Reg minus_minimum;  // Q4_K only
};

/// What differs between the formats: where 32 columns of a group lie, their scales, their operands and how to multiply
/// them. open_chunk() reads what 256 columns have in common. kStreams groups are read side by side for 2 to 4 tokens,
/// when the memory is the limit: two are 1.14 to 1.19 times as fast as one for 4 bits, but for Q8_0 0.93 times.
template <class V>
struct FormatQ8_0 {
  using Reg = typename V::Reg;
  using Int = typename V::Int;
  static constexpr bool kHasMinimum = false;
  static constexpr int kStreams = 1;
  static constexpr int64_t kHeaderBytes = 0;
  static constexpr int64_t kCodeBytes = 32 * kLanes;
  struct ChunkScales {
    const std::byte* scales;
  };

  static void open_chunk(const std::byte* group, int64_t cols, int64_t block, ChunkScales& chunk) {
    chunk.scales = group + cols * kLanes + block * 2 * kLanes;
  }
  static const std::byte* codes(const std::byte* group, int64_t block) { return group + block * kCodeBytes; }
  static RowScales<V> scales(const ChunkScales& chunk, int64_t i) {
    const Reg scale = V::load_f16(chunk.scales + i * 2 * kLanes);
    return {scale, V::mul(scale, V::set(-kSumBiasValue)), V::zero()};
  }
  static void operands(const std::byte* codes, Int (&out)[kSteps]) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < kSteps; ++i) out[i] = V::q8_operand(V::load_int(codes + i * 4 * kLanes));
  }
  static Int start(const ActivationBlock& x) {
    return V::set_int(V::q8_start(x));
  }
  static Int dot(Int sum, Int operand, Int x) {
    return V::dot4_q8(sum, operand, x);
  }
};

/// Two operands from each 64 bytes of nibbles.
template <class V>
inline void nibble_operands(const std::byte* codes, typename V::Int (&out)[kSteps]) noexcept {
#pragma GCC unroll 4
  for (int64_t i = 0; i < kSteps / 2; ++i) {
    const auto pairs = V::load_int(codes + i * 4 * kLanes);
    out[2 * i] = V::bit_and(pairs, 0x0f0f0f0f);
    out[2 * i + 1] = V::bit_and(V::template shift_right<4>(pairs), 0x0f0f0f0f);
  }
}

template <class V>
struct FormatQ4_0 {
  using Reg = typename V::Reg;
  using Int = typename V::Int;
  static constexpr bool kHasMinimum = false;
  static constexpr int kStreams = 2;
  static constexpr int64_t kHeaderBytes = 0;
  static constexpr int64_t kCodeBytes = 16 * kLanes;
  struct ChunkScales {
    const std::byte* scales;
  };

  static void open_chunk(const std::byte* group, int64_t cols, int64_t block, ChunkScales& chunk) {
    chunk.scales = group + cols / 2 * kLanes + block * 2 * kLanes;
  }
  static const std::byte* codes(const std::byte* group, int64_t block) { return group + block * kCodeBytes; }
  static RowScales<V> scales(const ChunkScales& chunk, int64_t i) {
    const Reg scale = V::load_f16(chunk.scales + i * 2 * kLanes);
    return {scale, V::mul(scale, V::set(-kSumBiasValue)), V::zero()};
  }
  static void operands(const std::byte* codes, Int (&out)[kSteps]) { nibble_operands<V>(codes, out); }
  static Int start(const ActivationBlock& x) { return V::set_int(x.start_q4_0); }
  static Int dot(Int sum, Int operand, Int x) { return V::dot4(sum, operand, x); }
};

template <class V>
struct FormatQ4_K {
  using Reg = typename V::Reg;
  using Int = typename V::Int;
  static constexpr bool kHasMinimum = true;
  static constexpr int kStreams = 2;
  static constexpr int64_t kHeaderBytes = 2 * 32 + 12 * kLanes;  // d, dmin, scales and minima before 256 columns' codes
  static constexpr int64_t kCodeBytes = 16 * kLanes;
  static constexpr int64_t kSuperBytes = kHeaderBytes + 8 * kCodeBytes;
  static_assert(kChunkBlocks * kActivationBlock == 256);
  struct ChunkScales {
    Reg d, dmin;
    alignas(64) std::byte bits[16 * kLanes];  // [8 scales, 8 minima][16 rows], 6 bits each
  };

  /// GGUF's packing of 8 scales and 8 minima into 12 bytes, undone for four of them in all rows at a time.
  static void open_chunk(const std::byte* group, int64_t /*cols*/, int64_t block, ChunkScales& chunk) {
    const std::byte* super = group + block / kChunkBlocks * kSuperBytes;
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
  static const std::byte* codes(const std::byte* group, int64_t block) {
    return group + block / kChunkBlocks * kSuperBytes + kHeaderBytes + block % kChunkBlocks * kCodeBytes;
  }
  static RowScales<V> scales(const ChunkScales& chunk, int64_t i) {
    const Reg scale = V::mul(chunk.d, V::to_float(V::load_u8(chunk.bits + i * kLanes)));
    const Reg minimum = V::mul(chunk.dmin, V::to_float(V::load_u8(chunk.bits + (8 + i) * kLanes)));
    return {scale, V::mul(scale, V::set(-kSumBiasValue)), V::negate(minimum)};
  }
  static void operands(const std::byte* codes, Int (&out)[kSteps]) { nibble_operands<V>(codes, out); }
  static Int start(const ActivationBlock& /*x*/) { return V::set_int(kSumBias); }
  static Int dot(Int sum, Int operand, Int x) { return V::dot4(sum, operand, x); }
};

}  // namespace
}  // namespace moraine::cpu

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

/// Super-blocks are quantized eight groups side by side, one per lane. A lane computes what the same formulas would for
/// its group alone, in the same order, in plain f32: the bytes do not depend on how wide the machine's registers are.
/// Everything here is inlined into one function per format, which is compiled for SSE2 and for AVX2
/// (quantize_widest()).
namespace moraine::quant::quantize_detail {

#define MORAINE_LANES [[gnu::always_inline]] inline

constexpr int kGroupLanes = 8;
/// A number of each of eight groups (GCC's and Clang's vector extension).
using GroupLanes = float __attribute__((vector_size(4 * kGroupLanes)));
/// The answer of a comparison: 0 or −1 for each.
using LaneMask = int32_t __attribute__((vector_size(4 * kGroupLanes)));

/// Vectors go by reference: how they are passed by value depends on the instruction set.
MORAINE_LANES void set_all(GroupLanes& lanes, float v) {
  lanes = GroupLanes{v, v, v, v, v, v, v, v};
}

/// x [kGroups × kElements] of a super-block, transposed: lane l of [h][i] is element i of group 8·h + l.
template <int kGroups, int kElements>
struct TransposedBlock {
  static constexpr int kHalves = kGroups / kGroupLanes;
  GroupLanes x[kHalves][kElements];

  MORAINE_LANES explicit TransposedBlock(const float* values) {
    float turned[kHalves][kElements][kGroupLanes];
    for (int g = 0; g < kGroups; ++g) {
      for (int i = 0; i < kElements; ++i) turned[g / kGroupLanes][i][g % kGroupLanes] = values[g * kElements + i];
    }
    std::memcpy(x, turned, sizeof(x));
  }
};

/// Integers from 0 to 255 of a transposed super-block → bytes [groups × kElements] in the order of the weights.
template <int kHalves, int kElements>
MORAINE_LANES void store_transposed(const GroupLanes (&lanes)[kHalves][kElements], uint8_t* bytes) {
  for (int h = 0; h < kHalves; ++h) {
    LaneMask numbers[kElements];
    for (int i = 0; i < kElements; ++i) numbers[i] = __builtin_convertvector(lanes[h][i], LaneMask);
    int32_t turned[kElements][kGroupLanes];
    std::memcpy(turned, numbers, sizeof(turned));
    for (int lane = 0; lane < kGroupLanes; ++lane) {
      for (int i = 0; i < kElements; ++i) {
        bytes[(h * kGroupLanes + lane) * kElements + i] = static_cast<uint8_t>(turned[i][lane]);
      }
    }
  }
}

/// v rounded to the nearest integer (ties to even), |v| < 2^22, as round_small().
MORAINE_LANES void round_lanes(GroupLanes& v) {
  v = (v + 0x1.8p23f) - 0x1.8p23f;
}

/// As clamp().
MORAINE_LANES void clamp_lanes(GroupLanes& v, float low, float high) {
  GroupLanes lows, highs;
  set_all(lows, low);
  set_all(highs, high);
  v = v < lows ? lows : v;
  v = v > highs ? highs : v;
}

/// inverse = 1 / v, 0 where v is 0.
MORAINE_LANES void invert_lanes(const GroupLanes& v, GroupLanes& inverse) {
  const GroupLanes zeros{};
  inverse = v == zeros ? zeros : 1.0f / v;
}

/// Calls Quantizer::quantize(x, block), compiled for AVX2.
template <class Quantizer, typename Block>
[[gnu::target("avx2"), gnu::noinline]] bool quantize_avx2(const float* x, Block& block) {
  return Quantizer::quantize(x, block);
}

/// Calls Quantizer::quantize(x, block), compiled for the best instruction set there is.
template <class Quantizer, typename Block>
bool quantize_widest(const float* x, Block& block) {
  static const bool has_avx2 = __builtin_cpu_supports("avx2") != 0;
  return has_avx2 ? quantize_avx2<Quantizer>(x, block) : Quantizer::quantize(x, block);
}

}  // namespace moraine::quant::quantize_detail

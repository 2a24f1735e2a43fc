#include "cpu/kernels_scalar_int8.h"

#include <cmath>
#include <limits>
#include <type_traits>

#include "quant/dequantize.h"
#include "quant/packed_blocks.h"

// What the int8 kernels mean, written plainly. The other instruction sets are tested against these functions bit by
// bit.
namespace moraine::cpu {
namespace {

/// 32 weights of a row: weight[i] = scale · q[i] − minimum, with q an integer.
struct WeightBlock {
  int q[kActivationBlock];
  float scale;
  float minimum;
};

/// Columns 32·b … 32·b + 31 of row `r` of a packed group.
WeightBlock block_at(const quant::BlockQ8_0& /*format*/, const std::byte* group, int64_t cols, int64_t b, int64_t r) {
  quant::BlockQ8_0 packed;
  quant::gather(group, cols, b, r, packed);
  WeightBlock block{.q = {}, .scale = quant::f32_from_f16(packed.d), .minimum = 0.0f};
  for (int i = 0; i < 32; ++i) block.q[i] = packed.q[i];
  return block;
}

WeightBlock block_at(const quant::BlockQ4_0& /*format*/, const std::byte* group, int64_t cols, int64_t b, int64_t r) {
  quant::BlockQ4_0 packed;
  quant::gather(group, cols, b, r, packed);
  WeightBlock block{.q = {}, .scale = quant::f32_from_f16(packed.d), .minimum = 0.0f};
  for (int i = 0; i < 16; ++i) {
    block.q[i] = (packed.codes[i] & 15) - 8;
    block.q[i + 16] = (packed.codes[i] >> 4) - 8;
  }
  return block;
}

WeightBlock block_at(const quant::BlockQ4_K& /*format*/, const std::byte* group, int64_t cols, int64_t b, int64_t r) {
  quant::BlockQ4_K packed;
  quant::gather(group, cols, b / 8, r, packed);
  const int sub = static_cast<int>(b % 8);
  const quant::ScaleMin bits = quant::q4_k_scale_min(packed.scales, sub);
  WeightBlock block{.q = {},
                    .scale = quant::f32_from_f16(packed.d) * static_cast<float>(bits.scale),
                    .minimum = quant::f32_from_f16(packed.dmin) * static_cast<float>(bits.min)};
  for (int i = 0; i < 32; ++i) block.q[i] = (packed.codes[32 * (sub / 2) + i] >> (4 * (sub % 2))) & 15;
  return block;
}

template <class Format>
void multiply(const PackedGroups& groups, const ActivationBlock* const* x, int64_t token_count, float* out,
              int64_t out_stride) noexcept {
  for (int64_t row = 0; row < groups.group_count * kLanes; ++row) {
    const std::byte* group = groups.data + row / kLanes * groups.group_bytes;
    for (int64_t t = 0; t < token_count; ++t) out[t * out_stride + row] = 0.0f;
    for (int64_t b = 0; b < groups.cols / kActivationBlock; ++b) {
      const WeightBlock weights = block_at(Format{}, group, groups.cols, b, row % kLanes);
      for (int64_t t = 0; t < token_count; ++t) {
        int32_t dot = 0;
        for (int64_t i = 0; i < kActivationBlock; ++i) dot += weights.q[i] * x[t][b].q[i];
        const float product = static_cast<float>(dot) * weights.scale + 0.0f;
        float& acc = out[t * out_stride + row];
        acc = std::fma(product, x[t][b].scale, acc);
        if constexpr (std::is_same_v<Format, quant::BlockQ4_K>) {
          acc = std::fma(-weights.minimum, x[t][b].scaled_sum, acc);
        }
      }
    }
  }
}

void quantize_block(const float* x, ActivationBlock& block) noexcept {
  float largest = 0.0f;
  bool finite = true;
  for (int64_t i = 0; i < kActivationBlock; ++i) {
    finite = finite && std::isfinite(x[i]);
    largest = std::fmax(largest, std::fabs(x[i]));
  }
  const bool zero = !finite || largest < kSmallestActivation;
  const float inverse = zero ? 0.0f : 127.0f / largest;
  int32_t sum = 0;
  for (int64_t i = 0; i < kActivationBlock; ++i) {
    block.q[i] = zero ? int8_t{0} : static_cast<int8_t>(std::nearbyint(x[i] * inverse));
    sum += block.q[i];
  }
  block.scale = zero ? 0.0f : largest / 127.0f;
  if (!finite) block.scale = std::numeric_limits<float>::quiet_NaN();
  block.scaled_sum = block.scale * static_cast<float>(sum);
  block.start_q4_0 = kSumBias - 8 * sum;
  block.start_q8_0 = kSumBias - 128 * sum;
}

}  // namespace

void scalar_quantize_activations(const float* x, int64_t cols, ActivationBlock* blocks) noexcept {
  for (int64_t b = 0; b < cols / kActivationBlock; ++b) quantize_block(x + b * kActivationBlock, blocks[b]);
}

void scalar_int8_q8_0(const PackedGroups& groups, const ActivationBlock* const* x, int64_t token_count,
                      std::byte* /*panel*/, float* out, int64_t out_stride) noexcept {
  multiply<quant::BlockQ8_0>(groups, x, token_count, out, out_stride);
}

void scalar_int8_q4_0(const PackedGroups& groups, const ActivationBlock* const* x, int64_t token_count,
                      std::byte* /*panel*/, float* out, int64_t out_stride) noexcept {
  multiply<quant::BlockQ4_0>(groups, x, token_count, out, out_stride);
}

void scalar_int8_q4_k(const PackedGroups& groups, const ActivationBlock* const* x, int64_t token_count,
                      std::byte* /*panel*/, float* out, int64_t out_stride) noexcept {
  multiply<quant::BlockQ4_K>(groups, x, token_count, out, out_stride);
}

}  // namespace moraine::cpu

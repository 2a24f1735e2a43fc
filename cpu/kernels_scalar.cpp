#include <bit>
#include <cmath>
#include <limits>

#include "cpu/kernels.h"
#include "cpu/kernels_exp.h"
#include "cpu/kernels_scalar_bf16.h"
#include "cpu/kernels_scalar_decode.h"
#include "cpu/kernels_scalar_int8.h"
#include "quant/dequantize.h"

// What every kernel means, written plainly. The other instruction sets are tested against these functions bit by bit.
namespace moraine::cpu {
namespace {

/// The definition takes any number of rows.
constexpr int64_t kAnyRows = std::numeric_limits<int64_t>::max();

uint8_t byte_at(const std::byte* data, int64_t offset) noexcept {
  return static_cast<uint8_t>(data[offset]);
}

/// A little-endian 16-bit number.
uint16_t half_at(const std::byte* data, int64_t offset) noexcept {
  return static_cast<uint16_t>(byte_at(data, offset) | byte_at(data, offset + 1) << 8);
}

void decode_f16(const PackedGroup& group, int64_t first_col, int64_t col_count, float* out) noexcept {
  for (int64_t i = 0; i < col_count * kLanes; ++i) {
    out[i] = quant::f32_from_f16(half_at(group.data, (first_col * kLanes + i) * 2));
  }
}

void decode_bf16(const PackedGroup& group, int64_t first_col, int64_t col_count, float* out) noexcept {
  for (int64_t col = 0; col < col_count; ++col) {
    for (int64_t row = 0; row < kLanes; ++row) {
      const int64_t pair = (first_col + col) / 2;
      const int64_t element = (pair * kLanes + row) * 2 + (first_col + col) % 2;
      out[col * kLanes + row] = quant::f32_from_bf16(half_at(group.data, element * 2));
    }
  }
}

void decode_f8_e4m3(const PackedGroup& group, int64_t first_col, int64_t col_count, float* out) noexcept {
  for (int64_t col = 0; col < col_count; ++col) {
    const float scale = group.fp8_scales[(first_col + col) / 128];
    for (int64_t row = 0; row < kLanes; ++row) {
      const uint8_t byte = byte_at(group.data, (first_col + col) * kLanes + row);
      out[col * kLanes + row] = quant::f32_from_e4m3(byte) * scale;
    }
  }
}

void multiply(const Panel& panel, const float* x, int64_t x_stride, int64_t token_count, int64_t k_count, float* acc,
              int64_t acc_stride) noexcept {
  for (int64_t t = 0; t < token_count; ++t) {
    for (int64_t row = 0; row < panel.group_count * kLanes; ++row) {
      const float* weights = panel.data + row / kLanes * panel.group_stride + row % kLanes;
      float sum = acc[t * acc_stride + row];
      for (int64_t k = 0; k < k_count; ++k) sum = std::fma(weights[k * panel.k_stride], x[t * x_stride + k], sum);
      acc[t * acc_stride + row] = sum;
    }
  }
}

/// Sum of 16 lanes by halving; the lanes are used up.
float tree(float* lanes) noexcept {
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

void combine_rows(const Panel& panel, const float* weights, int64_t weights_stride, int64_t token_count,
                  int64_t k_count, float* out, int64_t out_stride) noexcept {
  for (int64_t t = 0; t < token_count; ++t) {
    for (int64_t k = 0; k < k_count; ++k) {
      float lanes[kLanes] = {};
      for (int64_t row = 0; row < panel.group_count * kLanes; ++row) {
        const int64_t lane = row % kLanes;
        const float w = panel.data[row / kLanes * panel.group_stride + k * panel.k_stride + lane];
        lanes[lane] = std::fma(w, weights[t * weights_stride + row], lanes[lane]);
      }
      out[t * out_stride + k] = tree(lanes);
    }
  }
}

float exp_of(float x) noexcept {
  x = kExpLowest > x ? kExpLowest : x;
  x = kExpHighest < x ? kExpHighest : x;
  const float t = std::fma(x, kLog2E, kExpMagic);
  const auto n = static_cast<int32_t>(std::bit_cast<uint32_t>(t) - kExpMagicBits);
  float r = t - kExpMagic;
  r = std::fma(r, -kLn2Low, std::fma(r, -kLn2High, x));
  float p = kExpC7;
  for (const float c : {kExpC6, kExpC5, kExpC4, kExpC3, kExpC2, 1.0f, 1.0f}) p = std::fma(p, r, c);
  const auto power_of_two = [](int32_t e) { return std::bit_cast<float>((static_cast<uint32_t>(e) + 127u) << 23); };
  return p * power_of_two(n >> 1) * power_of_two(n - (n >> 1));
}

void rms_norm(const float* x, const float* w, int64_t n, float eps, float* y) noexcept {
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i % kLanes] = std::fma(x[i], x[i], lanes[i % kLanes]);
  const float r = 1.0f / std::sqrt(tree(lanes) / static_cast<float>(n) + eps);
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * r * w[i];
}

void silu_multiply(const float* gate, const float* up, int64_t n, float* out) noexcept {
  for (int64_t i = 0; i < n; ++i) out[i] = gate[i] / (1.0f + exp_of(-gate[i])) * up[i];
}

float softmax_step(float* scores, int64_t n, float scale, SoftmaxState& state) noexcept {
  float max = state.max;
  for (int64_t i = 0; i < n; ++i) {
    scores[i] *= scale;
    max = scores[i] > max ? scores[i] : max;
  }
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) {
    scores[i] = exp_of(scores[i] - max);
    lanes[i % kLanes] += scores[i];
  }
  const float rescale = exp_of(state.max - max);
  state.sum = state.sum * rescale + tree(lanes);
  state.max = max;
  return rescale;
}

constexpr KernelTable kTable = {
    .name = "scalar",
    .decode_f16 = decode_f16,
    .decode_bf16 = decode_bf16,
    .decode_f8_e4m3 = decode_f8_e4m3,
    .decode_q8_0 = scalar_decode<quant::BlockQ8_0>,
    .decode_q4_0 = scalar_decode<quant::BlockQ4_0>,
    .decode_q4_1 = scalar_decode<quant::BlockQ4_1>,
    .decode_q5_0 = scalar_decode<quant::BlockQ5_0>,
    .decode_q5_1 = scalar_decode<quant::BlockQ5_1>,
    .decode_q2_k = scalar_decode<quant::BlockQ2_K>,
    .decode_q3_k = scalar_decode<quant::BlockQ3_K>,
    .decode_q4_k = scalar_decode<quant::BlockQ4_K>,
    .decode_q5_k = scalar_decode<quant::BlockQ5_K>,
    .decode_q6_k = scalar_decode<quant::BlockQ6_K>,
    .decode_iq4_nl = scalar_decode<quant::BlockIQ4_NL>,
    .decode_iq4_xs = scalar_decode<quant::BlockIQ4_XS>,
    .decode_iq3_xxs = scalar_decode<quant::BlockIQ3_XXS>,
    .decode_iq3_s = scalar_decode<quant::BlockIQ3_S>,
    .decode_iq2_xxs = scalar_decode<quant::BlockIQ2_XXS>,
    .decode_iq2_xs = scalar_decode<quant::BlockIQ2_XS>,
    .decode_iq2_s = scalar_decode<quant::BlockIQ2_S>,
    .decode_iq1_s = scalar_decode<quant::BlockIQ1_S>,
    .decode_iq1_m = scalar_decode<quant::BlockIQ1_M>,
    .int8_q8_0 = {.stream_rows = kAnyRows, .stream = scalar_int8<quant::BlockQ8_0>},
    .int8_q4_0 = {.stream_rows = kAnyRows, .stream = scalar_int8<quant::BlockQ4_0>},
    .int8_q4_1 = {.stream_rows = kAnyRows, .stream = scalar_int8<quant::BlockQ4_1>},
    .int8_q5_0 = {.stream_rows = kAnyRows, .stream = scalar_int8<quant::BlockQ5_0>},
    .int8_q5_1 = {.stream_rows = kAnyRows, .stream = scalar_int8<quant::BlockQ5_1>},
    .int8_q2_k = {.stream_rows = kAnyRows, .stream = scalar_int8<quant::BlockQ2_K>},
    .int8_q3_k = {.stream_rows = kAnyRows, .stream = scalar_int8<quant::BlockQ3_K>},
    .int8_q4_k = {.stream_rows = kAnyRows, .stream = scalar_int8<quant::BlockQ4_K>},
    .int8_q5_k = {.stream_rows = kAnyRows, .stream = scalar_int8<quant::BlockQ5_K>},
    .int8_q6_k = {.stream_rows = kAnyRows, .stream = scalar_int8<quant::BlockQ6_K>},
    .int8_iq4_nl = {.stream_rows = kAnyRows, .stream = scalar_int8<quant::BlockIQ4_NL>},
    .int8_iq4_xs = {.stream_rows = kAnyRows, .stream = scalar_int8<quant::BlockIQ4_XS>},
    .int8_iq3_xxs = {.stream_rows = kAnyRows, .stream = scalar_int8<quant::BlockIQ3_XXS>},
    .int8_iq3_s = {.stream_rows = kAnyRows, .stream = scalar_int8<quant::BlockIQ3_S>},
    .int8_iq2_xxs = {.stream_rows = kAnyRows, .stream = scalar_int8<quant::BlockIQ2_XXS>},
    .int8_iq2_xs = {.stream_rows = kAnyRows, .stream = scalar_int8<quant::BlockIQ2_XS>},
    .int8_iq2_s = {.stream_rows = kAnyRows, .stream = scalar_int8<quant::BlockIQ2_S>},
    .int8_iq1_s = {.stream_rows = kAnyRows, .stream = scalar_int8<quant::BlockIQ1_S>},
    .int8_iq1_m = {.stream_rows = kAnyRows, .stream = scalar_int8<quant::BlockIQ1_M>},
    .int8_stream_rows = kAnyRows,
    .quantize_activations = scalar_quantize_activations,
    .multiply = multiply,
    .combine_rows = combine_rows,
    .rms_norm = rms_norm,
    .silu_multiply = silu_multiply,
    .softmax_step = softmax_step,
    .bf16 = {.round = scalar_bf16_round,
             .pair_rows = scalar_bf16_pair_rows,
             .pair_f32_rows = scalar_bf16_pair_f32_rows,
             .multiply = scalar_bf16_multiply,
             .rescale = scalar_bf16_rescale,
             .softmax = scalar_bf16_softmax,
             .absorb_q8_0 = scalar_absorb<quant::BlockQ8_0>,
             .absorb_q4_0 = scalar_absorb<quant::BlockQ4_0>,
             .absorb_q4_k = scalar_absorb<quant::BlockQ4_K>},
};

}  // namespace

const KernelTable& scalar_kernels() noexcept {
  return kTable;
}

}  // namespace moraine::cpu

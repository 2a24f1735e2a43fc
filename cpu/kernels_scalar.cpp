#include <bit>
#include <cmath>

#include "cpu/kernels.h"
#include "cpu/kernels_exp.h"
#include "quant/dequantize.h"

// What every kernel means, written plainly. The other instruction sets are tested against these functions bit by bit.
namespace moraine::cpu {
namespace {

uint8_t byte_at(const std::byte* data, int64_t offset) noexcept {
  return static_cast<uint8_t>(data[offset]);
}

/// A little-endian 16-bit number.
uint16_t half_at(const std::byte* data, int64_t offset) noexcept {
  return static_cast<uint16_t>(byte_at(data, offset) | byte_at(data, offset + 1) << 8);
}

float f16_at(const std::byte* data, int64_t offset) noexcept {
  return quant::f32_from_f16(half_at(data, offset));
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

void decode_q8_0(const PackedGroup& group, int64_t first_col, int64_t col_count, float* out) noexcept {
  const std::byte* scales = group.data + group.cols * kLanes;  // [cols/32][16] f16
  for (int64_t col = 0; col < col_count; ++col) {
    const int64_t k = first_col + col;
    for (int64_t row = 0; row < kLanes; ++row) {
      const auto q = static_cast<int8_t>(byte_at(group.data, (k / 4 * kLanes + row) * 4 + k % 4));
      out[col * kLanes + row] = f16_at(scales, (k / 32 * kLanes + row) * 2) * static_cast<float>(q);
    }
  }
}

/// The 4-bit number of column `k` (counted from where `quads` starts) in the nibble order of Q4_0 and Q4_K.
int nibble(const std::byte* quads, int64_t k, int64_t row) noexcept {
  const uint8_t byte = byte_at(quads, (k / 8 * kLanes + row) * 4 + k % 4);
  return k % 8 < 4 ? byte & 0x0f : byte >> 4;
}

void decode_q4_0(const PackedGroup& group, int64_t first_col, int64_t col_count, float* out) noexcept {
  const std::byte* scales = group.data + group.cols / 2 * kLanes;  // [cols/32][16] f16
  for (int64_t col = 0; col < col_count; ++col) {
    const int64_t k = first_col + col;
    for (int64_t row = 0; row < kLanes; ++row) {
      const float scale = f16_at(scales, (k / 32 * kLanes + row) * 2);
      out[col * kLanes + row] = scale * static_cast<float>(nibble(group.data, k, row) - 8);
    }
  }
}

constexpr int64_t kQ4KBlockBytes = 2 * 32 + 12 * kLanes + 128 * kLanes;  // of 16 rows × 256 columns

/// GGUF's 6-bit scale and minimum of sub-block `sub` (0…7) of a row, from its 12 bytes (stride 16).
void q4_k_scale_min(const std::byte* packed, int64_t sub, int64_t row, float& scale, float& minimum) noexcept {
  const auto at = [&](int64_t i) { return byte_at(packed, i * kLanes + row); };
  if (sub < 4) {
    scale = static_cast<float>(at(sub) & 63);
    minimum = static_cast<float>(at(sub + 4) & 63);
  } else {
    scale = static_cast<float>((at(sub + 4) & 0x0f) | (at(sub - 4) >> 6 << 4));
    minimum = static_cast<float>((at(sub + 4) >> 4) | (at(sub) >> 6 << 4));
  }
}

void decode_q4_k(const PackedGroup& group, int64_t first_col, int64_t col_count, float* out) noexcept {
  for (int64_t col = 0; col < col_count; ++col) {
    const int64_t k = (first_col + col) % 256;
    const std::byte* block = group.data + (first_col + col) / 256 * kQ4KBlockBytes;
    for (int64_t row = 0; row < kLanes; ++row) {
      float scale = 0.0f, minimum = 0.0f;
      q4_k_scale_min(block + 64, k / 32, row, scale, minimum);
      scale = f16_at(block, row * 2) * scale;
      minimum = f16_at(block, 32 + row * 2) * minimum;
      const auto q = static_cast<float>(nibble(block + 64 + 12 * kLanes, k, row));
      out[col * kLanes + row] = scale * q - minimum;
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
    .decode_bf16 = decode_bf16,
    .decode_f8_e4m3 = decode_f8_e4m3,
    .decode_q8_0 = decode_q8_0,
    .decode_q4_0 = decode_q4_0,
    .decode_q4_k = decode_q4_k,
    .multiply = multiply,
    .combine_rows = combine_rows,
    .rms_norm = rms_norm,
    .silu_multiply = silu_multiply,
    .softmax_step = softmax_step,
};

}  // namespace

const KernelTable& scalar_kernels() noexcept {
  return kTable;
}

}  // namespace moraine::cpu

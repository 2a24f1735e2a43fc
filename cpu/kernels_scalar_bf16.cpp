#include "cpu/kernels_scalar_bf16.h"

#include <bit>
#include <cmath>
#include <initializer_list>

#include "cpu/kernels_exp.h"

// What the bf16 kernels mean, written plainly. The other instruction sets are tested against these functions bit by
// bit.
namespace moraine::cpu {
namespace {

Bf16 upper_half(float x) noexcept {
  return static_cast<Bf16>((std::bit_cast<uint32_t>(x) + 0x8000u) >> 16);
}

Bf16 to_bf16(float x) noexcept {
  return std::fabs(x) < kSmallestBf16 ? Bf16{0} : upper_half(x);
}

float to_f32(Bf16 x) noexcept {
  return std::bit_cast<float>(static_cast<uint32_t>(x) << 16);
}

float exp2_of(float x) noexcept {
  x = kExp2Lowest > x ? kExp2Lowest : x;
  const float t = x + kExp2Magic;
  const float r = x - (t - kExp2Magic);
  float p = kExp2C4;
  for (const float c : {kExp2C3, kExp2C2, kExp2C1, kExp2C0}) p = std::fma(p, r, c);
  return p * std::bit_cast<float>(std::bit_cast<uint32_t>(t) << 23);
}

/// Row `row` of a block of scores.
void softmax_row(const Bf16Scores& block, int64_t row) noexcept {
  const float* scores = block.scores + row;
  const auto seen = static_cast<int64_t>(block.seen[row]);
  float max = block.max[row];
  for (int64_t t = 0; t < seen; ++t) {
    const float score = scores[t * block.stride];
    max = score > max ? score : max;
  }
  const float shift = -(max * block.scale);
  float sums[2] = {};
  for (int64_t t = 0; t < (block.token_count + kBf16Steps - 1) / kBf16Steps * kBf16Steps; ++t) {
    Bf16 weight = 0;
    if (t < seen) weight = upper_half(exp2_of(std::fma(scores[t * block.stride], block.scale, shift)));
    block.weights[row * block.weight_stride + t] = weight;
    sums[t % 2] += to_f32(weight);
  }
  block.rescale[row] = exp2_of((block.max[row] - max) * block.scale);
  block.sum[row] = std::fma(block.sum[row], block.rescale[row], sums[0] + sums[1]);
  block.max[row] = max;
}

}  // namespace

void scalar_bf16_round(const float* x, int64_t n, Bf16* out) noexcept {
  for (int64_t i = 0; i < n; ++i) out[i] = to_bf16(x[i]);
}

void scalar_bf16_pair_rows(const Bf16* rows, int64_t row_stride, int64_t row_count, int64_t group_count, Bf16* out,
                           int64_t group_stride) noexcept {
  for (int64_t g = 0; g < group_count; ++g) {
    for (int64_t t = 0; t < (row_count + 1) / 2 * 2; ++t) {
      for (int64_t lane = 0; lane < 16; ++lane) {
        out[g * group_stride + t / 2 * 32 + 2 * lane + t % 2] =
            t < row_count ? rows[t * row_stride + g * 16 + lane] : Bf16{0};
      }
    }
  }
}

void scalar_bf16_pair_f32_rows(const float* rows, int64_t row_stride, int64_t row_count, int64_t group_count, Bf16* out,
                               int64_t group_stride) noexcept {
  for (int64_t g = 0; g < group_count; ++g) {
    for (int64_t t = 0; t < (row_count + 1) / 2 * 2; ++t) {
      for (int64_t lane = 0; lane < 16; ++lane) {
        out[g * group_stride + t / 2 * 32 + 2 * lane + t % 2] =
            t < row_count ? to_bf16(rows[t * row_stride + g * 16 + lane]) : Bf16{0};
      }
    }
  }
}

void scalar_bf16_multiply(const Bf16* a, int64_t a_stride, int64_t row_count, const Bf16Panel& b, int64_t k_count,
                          bool continued, float* c, int64_t c_stride) noexcept {
  for (int64_t m = 0; m < row_count; ++m) {
    for (int64_t n = 0; n < b.group_count * 16; ++n) {
      const Bf16* column = b.data + n / 16 * b.group_stride + n % 16 * 2;
      float sum = continued ? c[m * c_stride + n] : 0.0f;
      for (int64_t block = 0; block < k_count; block += kBf16Steps) {
        float even = 0.0f, odd = 0.0f;
        for (int64_t k = block; k < block + kBf16Steps; k += 2) {
          even = std::fma(to_f32(a[m * a_stride + k]), to_f32(column[k * 16]), even);
          odd = std::fma(to_f32(a[m * a_stride + k + 1]), to_f32(column[k * 16 + 1]), odd);
        }
        sum += even + odd;
      }
      c[m * c_stride + n] = sum;
    }
  }
}

void scalar_bf16_rescale(float* x, int64_t n, float factor) noexcept {
  for (int64_t i = 0; i < n; ++i) {
    x[i] *= factor;
    if (std::fabs(x[i]) < kSmallestBf16Sum) x[i] = 0.0f;
  }
}

void scalar_bf16_softmax(const Bf16Scores& block) noexcept {
  for (int64_t row = 0; row < block.group_count * 16; ++row) softmax_row(block, row);
}

}  // namespace moraine::cpu

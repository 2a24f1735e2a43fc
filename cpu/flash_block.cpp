#include "cpu/flash_block.h"

#include <xmmintrin.h>

#include <algorithm>

namespace moraine::cpu {

void flash_block(const KernelTable& kernels, const FlashRows& rows, const FlashBlock& block) noexcept {
  const int64_t first =
      std::lower_bound(rows.positions, rows.positions + rows.count, block.first_position) - rows.positions;
  const int64_t count = rows.count - first;
  if (count == 0) return;
  float* scores = rows.scores + first * rows.score_stride;
  float* mixed = rows.mixed + first * rows.value_width;
  std::fill_n(scores, count * rows.score_stride, 0.0f);
  const Panel keys{.data = block.keys,
                   .group_stride = rows.key_width * kLanes,
                   .k_stride = kLanes,
                   .group_count = (block.token_count + kLanes - 1) / kLanes};
  kernels.multiply(keys, rows.queries + first * rows.key_width, rows.key_width, count, rows.key_width, scores,
                   rows.score_stride);
  for (int64_t i = 0; i < count; ++i) {
    float* row_scores = scores + i * rows.score_stride;
    const int64_t seen = std::min(block.token_count, rows.positions[first + i] - block.first_position + 1);
    const float rescale = kernels.softmax_step(row_scores, seen, rows.scale, rows.softmax[first + i]);
    std::fill(row_scores + seen, row_scores + block.token_count, 0.0f);
    if (rescale == 1.0f) continue;
    for (int64_t c = 0; c < rows.value_width; ++c) mixed[i * rows.value_width + c] *= rescale;
  }
  const Panel values{.data = block.values,
                     .group_stride = kLanes,
                     .k_stride = block.value_stride,
                     .group_count = rows.value_width / kLanes};
  kernels.multiply(values, scores, rows.score_stride, count, block.token_count, mixed, rows.value_width);
}

void flash_finish(const FlashRows& rows) noexcept {
  for (int64_t i = 0; i < rows.count; ++i) {
    const float inverse = 1.0f / rows.softmax[i].sum;
    for (int64_t c = 0; c < rows.value_width; ++c) rows.mixed[i * rows.value_width + c] *= inverse;
  }
}

void transpose_keys(const float* rows, int64_t row_stride, int64_t token_count, int64_t width, float* out,
                    int64_t out_width) noexcept {
  for (int64_t token = 0; token < token_count; token += 4) {
    float* group = out + token / kLanes * out_width * kLanes + token % kLanes;
    const float* from = rows + token * row_stride;
    const int64_t present = std::min<int64_t>(4, token_count - token);
    int64_t c = 0;
    for (; present == 4 && c + 4 <= width; c += 4) {  // squares of 4 × 4; SSE is in every x86-64
      __m128 a = _mm_loadu_ps(from + c), b = _mm_loadu_ps(from + row_stride + c);
      __m128 d = _mm_loadu_ps(from + 2 * row_stride + c), e = _mm_loadu_ps(from + 3 * row_stride + c);
      _MM_TRANSPOSE4_PS(a, b, d, e);
      _mm_storeu_ps(group + c * kLanes, a);
      _mm_storeu_ps(group + (c + 1) * kLanes, b);
      _mm_storeu_ps(group + (c + 2) * kLanes, d);
      _mm_storeu_ps(group + (c + 3) * kLanes, e);
    }
    for (; c < width; ++c) {
      for (int64_t i = 0; i < 4; ++i) group[c * kLanes + i] = i < present ? from[i * row_stride + c] : 0.0f;
    }
  }
  for (int64_t token = (token_count + 3) / 4 * 4; token % kLanes != 0; ++token) {
    float* group = out + token / kLanes * out_width * kLanes + token % kLanes;
    for (int64_t c = 0; c < width; ++c) group[c * kLanes] = 0.0f;
  }
}

}  // namespace moraine::cpu

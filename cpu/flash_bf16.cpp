#include "cpu/flash_bf16.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "quant/error.h"

namespace moraine::cpu {
namespace {

constexpr float kLog2OfE = 0x1.715476p+0f;

Bf16* bf16_memory(FloatBuffer& buffer, int64_t count) {
  return reinterpret_cast<Bf16*>(buffer.get((count + 1) / 2));
}

}  // namespace

FlashBf16::FlashBf16(const KernelTable& kernels, WorkerScratch& scratch, int64_t row_count, int64_t key_width,
                     int64_t value_width, float scale)
    : kernels_(kernels),
      row_count_(row_count),
      key_width_(key_width),
      value_width_(value_width),
      softmax_scale_(scale),
      scale_(scale * kLog2OfE) {
  MORAINE_CHECK(key_width % kBf16Steps == 0 && value_width % kLanes == 0 && scale > 0.0f);
  const int64_t padded = padded_to_lanes(row_count);
  scratch.positions.resize(static_cast<size_t>(row_count));
  positions_ = scratch.positions.data();
  queries_ = bf16_memory(scratch.queries, padded * key_width);
  scores_ = scratch.scores.get(kFlashTokens * kFlashRows);
  weights_ = bf16_memory(scratch.probabilities, kFlashRows * kFlashTokens);
  max_ = scratch.softmax_rows.get(4 * padded);
  sum_ = max_ + padded;
  rescale_ = sum_ + padded;
  seen_ = rescale_ + padded;
  mixed_ = scratch.mixed.get(padded * value_width);
  restart();
  if (padded > row_count) {
    std::fill_n(queries_ + (padded - kLanes) * key_width, kLanes * key_width, Bf16{0});
  }
}

void FlashBf16::restart() {
  const int64_t padded = padded_to_lanes(row_count_);
  // Lanes without a row take part in everything and see nothing.
  std::fill_n(max_, 4 * padded, 0.0f);
  std::fill_n(max_, row_count_, -std::numeric_limits<float>::infinity());
  std::fill_n(mixed_, padded * value_width_, 0.0f);
}

void FlashBf16::set_row(int64_t i, int64_t position, const float* query) {
  constexpr int64_t kPiece = 64;
  positions_[i] = position;
  Bf16* lane = queries_ + i / kLanes * kLanes * key_width_ + i % kLanes * 2;
  for (int64_t first = 0; first < key_width_; first += kPiece) {
    Bf16 rounded[kPiece];
    const int64_t count = std::min(kPiece, key_width_ - first);
    kernels_.bf16.round(query + first, count, rounded);
    for (int64_t k = 0; k < count; k += 2) std::memcpy(lane + (first + k) * kLanes, rounded + k, 2 * sizeof(Bf16));
  }
}

int64_t FlashBf16::weigh(const FlashBf16Block& block, int64_t first_row, int64_t rows) {
  MORAINE_CHECK(block.first_position % kFlashTokens == 0 && first_row % kLanes == 0 && rows <= kFlashRows);
  first_row_ = first_row;
  rows_ = padded_to_lanes(rows);
  const int64_t last_position = positions_[first_row + rows - 1];
  const int64_t tokens = std::clamp<int64_t>(last_position - block.first_position + 1, 0, block.token_count);
  if (tokens == 0) return 0;
  for (int64_t i = first_row; i < first_row + rows; ++i) {
    const int64_t seen = std::clamp<int64_t>(positions_[i] - block.first_position + 1, 0, tokens);
    seen_[i] = static_cast<float>(seen);
  }
  const Bf16Panel queries{
      .data = queries_ + first_row * key_width_, .group_stride = key_width_ * kLanes, .group_count = rows_ / kLanes};
  for (int64_t token = 0; token < tokens; token += block.piece_tokens) {
    // Keys are the left operand: their rows are taken as they lie, and scores come out with query rows as lanes.
    kernels_.bf16.multiply(block.keys[token / block.piece_tokens], block.key_stride,
                           padded_to_lanes(std::min(block.piece_tokens, tokens - token)), queries, key_width_,
                           /*continued=*/false, scores_ + token * kFlashRows, kFlashRows);
  }
  kernels_.bf16.softmax({.scores = scores_,
                         .stride = kFlashRows,
                         .token_count = tokens,
                         .group_count = rows_ / kLanes,
                         .seen = seen_ + first_row,
                         .scale = scale_,
                         .max = max_ + first_row,
                         .sum = sum_ + first_row,
                         .rescale = rescale_ + first_row,
                         .weights = weights_,
                         .weight_stride = kFlashTokens});
  for (int64_t i = first_row; i < first_row + rows; ++i) {
    if (rescale_[i] != 1.0f) kernels_.bf16.rescale(mixed_ + i * value_width_, value_width_, rescale_[i]);
  }
  return tokens;
}

void FlashBf16::add(const Bf16Panel& values, int64_t first_group, int64_t tokens, int64_t first_token) {
  kernels_.bf16.multiply(weights_ + first_token, kFlashTokens, rows_, values, padded_tokens(tokens), /*continued=*/true,
                         mixed_ + first_row_ * value_width_ + first_group * kLanes, value_width_);
}

float* FlashBf16::finish(int64_t i) {
  float* row = mixed_ + i * value_width_;
  const float inverse = 1.0f / sum_[i];
  for (int64_t c = 0; c < value_width_; ++c) row[c] *= inverse;
  return row;
}

}  // namespace moraine::cpu

#pragma once

#include <cstdint>

#include "cpu/kernels.h"

namespace moraine::cpu {

/// Query rows of one attention task and what they have gathered so far. Positions do not fall from row to row.
struct FlashRows {
  int64_t count = 0;
  int64_t key_width = 0;
  int64_t value_width = 0;  // a multiple of 16
  float scale = 1.0f;
  const float* queries = nullptr;      // [count, key_width]
  const int64_t* positions = nullptr;  // [count]
  float* scores = nullptr;             // [count, block tokens, see score_stride]
  int64_t score_stride = 0;            // a multiple of 16, at least a block's tokens
  SoftmaxState* softmax = nullptr;     // [count]
  float* mixed = nullptr;              // [count, value_width] Σ exp(score − max) · value
};

/// A block of cached tokens at positions first_position … first_position + token_count − 1.
struct FlashBlock {
  int64_t first_position = 0;
  int64_t token_count = 0;
  const float* keys = nullptr;    // [ceil(token_count/16), key_width, 16 tokens]
  const float* values = nullptr;  // [token_count, value_stride], readable up to value_width in every row
  int64_t value_stride = 0;
};

/// Lets every row see the block's tokens at or before its own position.
void flash_block(const KernelTable& kernels, const FlashRows& rows, const FlashBlock& block) noexcept;

/// Ends the softmax: mixed := mixed / sum.
void flash_finish(const FlashRows& rows) noexcept;

/// Columns [0, width) of `token_count` rows → [ceil(token_count/16), out_width, 16 tokens], written from key 0 of `out`
/// on; the tokens missing from the last 16 become zeros.
void transpose_keys(const float* rows, int64_t row_stride, int64_t token_count, int64_t width, float* out,
                    int64_t out_width) noexcept;

}  // namespace moraine::cpu

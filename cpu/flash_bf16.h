#pragma once

#include <cstdint>

#include "cpu/kernels.h"
#include "cpu/workers.h"

namespace moraine::cpu {

/// Cached tokens that pass through the online softmax together: blocks begin at multiples of this.
constexpr int64_t kFlashTokens = 256;
/// Query rows whose scores and weights for a block are kept at a time: they stay in L2.
constexpr int64_t kFlashRows = 128;

/// `count` tokens rounded up to the steps of a bf16 product.
constexpr int64_t padded_tokens(int64_t count) {
  return (count + kBf16Steps - 1) / kBf16Steps * kBf16Steps;
}

/// A block of cached tokens at first_position (a multiple of kFlashTokens) and up.
struct FlashBf16Block {
  int64_t first_position = 0;
  int64_t token_count = 0;  // at most kFlashTokens
  /// Piece j holds keys j · piece_tokens and up, rows key_stride numbers apart, readable up to a multiple of 16 rows.
  const Bf16* const* keys = nullptr;
  int64_t piece_tokens = kFlashTokens;
  int64_t key_stride = 0;
};

/// Query rows of one attention task in bf16 and what they have gathered so far, in a worker's scratch (queries, scores,
/// probabilities, softmax_rows, mixed). Positions do not fall from row to row. A row's bits do not depend on the
/// others.
class FlashBf16 {
 public:
  /// `key_width` a multiple of 32, `value_width` of 16; `scale` of the scores, positive.
  FlashBf16(const KernelTable& kernels, WorkerScratch& scratch, int64_t row_count, int64_t key_width,
            int64_t value_width, float scale);

  int64_t row_count() const { return row_count_; }
  /// Row i's position and query, key_width values, which are rounded.
  void set_row(int64_t i, int64_t position, const float* query);

  /// Weights of the block's tokens for rows [first_row, +rows), rows ≤ kFlashRows; the rows' sums are rescaled. Returns
  /// the tokens that one of the rows sees, 0 if none does; the others have no weight.
  int64_t weigh(const FlashBf16Block& block, int64_t first_row, int64_t rows);

  /// Adds the weighted values of the tokens that the latest weigh() returned, columns 16 · first_group and up. Steps of
  /// `values` are `tokens` of the block's tokens from its token `first_token` (a multiple of 32) on; missing ones up to
  /// a multiple of 32 are finite where weigh() gave the token no weight, else zero.
  void add(const Bf16Panel& values, int64_t first_group, int64_t tokens, int64_t first_token = 0);

  /// Row i's weighted mean of the values, [value_width]. Once per row, at the end.
  float* finish(int64_t i);

  /// Row i's softmax so far, of scaled scores, and its weighted sum of the values [value_width].
  SoftmaxState softmax(int64_t i) const { return {max_[i] * softmax_scale_, sum_[i]}; }
  const float* mixed(int64_t i) const { return mixed_ + i * value_width_; }
  /// Forgets what the rows have gathered, not their queries.
  void restart();

 private:
  const KernelTable& kernels_;
  int64_t row_count_;
  int64_t key_width_;
  int64_t value_width_;
  float softmax_scale_;
  float scale_;            // with log2(e) in it
  int64_t first_row_ = 0;  // of the latest weigh()
  int64_t rows_ = 0;
  int64_t* positions_;  // [rows]
  Bf16* queries_;       // [rows/16, key_width/2, 16 rows, 2]
  float* scores_;       // [kFlashTokens, kFlashRows]
  Bf16* weights_;       // [kFlashRows, kFlashTokens]
  float* max_;          // [rows]
  float* sum_;          // [rows]
  float* rescale_;      // [rows]
  float* seen_;         // [rows]
  float* mixed_;        // [rows, value_width] Σ weight · value
};

}  // namespace moraine::cpu

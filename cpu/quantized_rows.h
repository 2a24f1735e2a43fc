#pragma once

#include <cstdint>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/row_view.h"
#include "cpu/workers.h"

namespace moraine::cpu {

/// `count` blocks in `buffer`.
inline ActivationBlock* activation_blocks(FloatBuffer& buffer, int64_t count) {
  static_assert(sizeof(ActivationBlock) % sizeof(float) == 0);
  return reinterpret_cast<ActivationBlock*>(
      buffer.get(count * static_cast<int64_t>(sizeof(ActivationBlock) / sizeof(float))));
}

/// Blocks from one row of int8 activations to the next: odd, so that a tile's rows spread over all sets of the caches.
/// Widths are multiples of large powers of two: rows that lie dense meet in the same few sets.
constexpr int64_t activation_row_blocks(int64_t cols) {
  return (cols / kActivationBlock) | 1;
}

/// Rows of activations quantized to int8, every distinct row once however often it is used. They lie in the workers'
/// input_activations(): one object at a time.
class QuantizedRows {
 public:
  /// Rows 0 … token_count − 1 of `x`, `cols` values each (a multiple of 32), will be needed.
  void add(const RowView& x, int64_t token_count);
  /// Quantizes what was added, on all workers.
  void quantize(Workers& workers, int64_t cols);

  /// The blocks of the rows of all add() calls, one after the other.  // [tokens of all calls]
  const ActivationBlock* const* blocks() const { return blocks_.data(); }

 private:
  std::vector<const float*> rows_;              // [tokens of all calls]
  std::vector<const float*> distinct_;          // ascending
  std::vector<const ActivationBlock*> blocks_;  // [tokens of all calls]
};

}  // namespace moraine::cpu

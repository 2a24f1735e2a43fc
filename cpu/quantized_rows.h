#pragma once

#include <cstdint>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/row_view.h"
#include "cpu/workers.h"

namespace moraine::cpu {

/// Room for `count` rows of `cols` int8 activations (a multiple of 32) as the kernels want them: `memory` has
/// int8_rows_floats(). Nothing is written.
Int8Rows place_int8_rows(const KernelTable& kernels, float* memory, int64_t count, int64_t cols);
int64_t int8_rows_floats(const KernelTable& kernels, int64_t count, int64_t cols);

/// Sets of rows of activations quantized to int8, each in the order in which a matrix is multiplied with it.
class QuantizedRows {
 public:
  /// Rows 0 … count − 1 of `x`, `cols` values each, will be needed. Returns the set's number; the same rows again are
  /// the same set.
  size_t add(const RowView& x, int64_t count, int64_t cols);
  /// Quantizes what was added, on all workers, into `memory`, of which it needs all.
  void quantize(Workers& workers, FloatBuffer& memory);

  const Int8Rows& set(size_t number) const { return sets_[number].rows; }

 private:
  struct Set {
    std::vector<const float*> sources;  // [count]
    Int8Rows rows;
  };
  std::vector<Set> sets_;
};

}  // namespace moraine::cpu

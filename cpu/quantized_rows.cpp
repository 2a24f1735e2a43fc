#include "cpu/quantized_rows.h"

#include <algorithm>
#include <functional>

namespace moraine::cpu {
namespace {

/// Rows of one task: quantizing 7168 values takes about 3 µs, less than waking a thread.
constexpr int64_t kTaskRows = 8;

}  // namespace

void QuantizedRows::add(const RowView& x, int64_t token_count) {
  for (int64_t t = 0; t < token_count; ++t) rows_.push_back(x.row(t));
}

void QuantizedRows::quantize(Workers& workers, int64_t cols) {
  distinct_ = rows_;
  std::ranges::sort(distinct_, std::less<>{});
  distinct_.erase(std::unique(distinct_.begin(), distinct_.end()), distinct_.end());
  const int64_t row_blocks = activation_row_blocks(cols), count = std::ssize(distinct_);
  ActivationBlock* storage = activation_blocks(workers.input_activations(), count * row_blocks);  // [distinct, blocks]
  workers.parallel_for((count + kTaskRows - 1) / kTaskRows, [&](int64_t task, WorkerScratch&) {
    for (int64_t i = task * kTaskRows; i < std::min(count, (task + 1) * kTaskRows); ++i) {
      workers.kernels().quantize_activations(distinct_[static_cast<size_t>(i)], cols, storage + i * row_blocks);
    }
  });
  blocks_.resize(rows_.size());
  for (size_t i = 0; i < rows_.size(); ++i) {
    const auto at = std::lower_bound(distinct_.begin(), distinct_.end(), rows_[i], std::less<>{});
    blocks_[i] = storage + (at - distinct_.begin()) * row_blocks;
  }
}

}  // namespace moraine::cpu

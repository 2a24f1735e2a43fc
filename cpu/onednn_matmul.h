#pragma once

#include <cstdint>

namespace moraine::cpu {

/// y [tokens, rows] = x [tokens, cols] · w [cols, rows] in f32 by oneDNN on the calling thread. The yardstick that the
/// own kernels are measured and tested against; no part of the model's path, because oneDNN divides cols above about
/// 512 into partial sums, so its bits depend on the shape (numbers: docs/decisions.md). Throws quant::Error if oneDNN
/// fails.
void onednn_matmul(const float* x, const float* w, int64_t tokens, int64_t rows, int64_t cols, float* y);

}  // namespace moraine::cpu

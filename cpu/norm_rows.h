#pragma once

#include <cstdint>
#include <span>

#include "cpu/workers.h"

namespace moraine::cpu {

/// to[row] = RMSNorm(from[row]) on all workers; rows of weight.size() values lie from_stride and to_stride floats
/// apart. `to` may be `from`.
inline void norm_rows(Workers& workers, const float* from, int64_t from_stride, std::span<const float> weight,
                      float eps, int64_t row_count, float* to, int64_t to_stride) {
  workers.parallel_for(row_count, [&](int64_t row, WorkerScratch&) {
    workers.kernels().rms_norm(from + row * from_stride, weight.data(), std::ssize(weight), eps, to + row * to_stride);
  });
}

}  // namespace moraine::cpu

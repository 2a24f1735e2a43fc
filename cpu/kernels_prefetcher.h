#pragma once

#include "cpu/kernels.h"

// Compiled for several instruction sets, hence in an anonymous namespace.
namespace moraine::cpu {
namespace {

/// Goes through a PanelAhead in `parts` parts.
class PanelPrefetcher {
 public:
  PanelPrefetcher(const PanelAhead& ahead, int64_t parts) noexcept : ahead_(ahead), part_bytes_(ahead.bytes / parts) {}

  /// Inlined by force: what only prefetches looks to the compiler as if it did nothing, and calls of it disappear.
  [[gnu::always_inline]] void next_part() noexcept {
    for (end_ += part_bytes_; at_ < end_; at_ += 64) {
#pragma GCC unroll 2
      for (int64_t g = 0; g < kInt8PanelGroups; ++g) {
        __builtin_prefetch(ahead_.data + g * ahead_.stride + at_, 0, 2);  // into L2
      }
    }
  }

 private:
  PanelAhead ahead_;
  int64_t part_bytes_;
  int64_t at_ = 0, end_ = 0;
};

}  // namespace
}  // namespace moraine::cpu

#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/packed_matrix.h"

namespace moraine::quant {

/// Type and shape of one of an expert's matrices.
struct MatrixDesc {
  DType type = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  bool operator==(const MatrixDesc&) const = default;
};

/// How one expert's record is laid out: gate [moe_intermediate, hidden], up (same), down [hidden, moe_intermediate],
/// each a packed matrix starting at a multiple of 64; the record is a multiple of 4096 bytes, so that O_DIRECT can read
/// it.
struct ExpertLayout {
  MatrixDesc gate, up, down;
  uint64_t up_offset_bytes = 0;
  uint64_t down_offset_bytes = 0;
  uint64_t record_bytes = 0;

  /// `wanted` per matrix after packable_type(). Throws Error(kBadFile) on impossible shapes.
  static ExpertLayout make(DType wanted, int64_t hidden_size, int64_t moe_intermediate_size);
  /// Throws Error(kBadFile) also if the three shapes do not belong together.
  static ExpertLayout make(const MatrixDesc& gate, const MatrixDesc& up, const MatrixDesc& down);
  bool operator==(const ExpertLayout&) const = default;
};

/// The three matrices of a record in memory.
struct ExpertView {
  PackedView gate, up, down;
};
/// `record` has layout.record_bytes and is aligned to 64.
ExpertView expert_view(const ExpertLayout& layout, const std::byte* record);

}  // namespace moraine::quant

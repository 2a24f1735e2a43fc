#include "quant/expert_layout.h"

#include <fmt/format.h>

#include "quant/error.h"

namespace moraine::quant {
namespace {

constexpr uint64_t kRecordAlignment = 4096;  // of O_DIRECT reads

constexpr uint64_t align_up(uint64_t bytes, uint64_t alignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

uint64_t bytes_of(const MatrixDesc& matrix) {
  return packed_bytes(matrix.type, matrix.rows, matrix.cols);
}

PackedView view_of(const MatrixDesc& matrix, const std::byte* data) {
  return {matrix.type, matrix.rows, matrix.cols, data};
}

std::string shape_text(const MatrixDesc& matrix) {
  return fmt::format("[{}, {}]", matrix.rows, matrix.cols);
}

}  // namespace

ExpertLayout ExpertLayout::make(DType wanted, int64_t hidden_size, int64_t moe_intermediate_size) {
  const MatrixDesc gate{packable_type(wanted, hidden_size), moe_intermediate_size, hidden_size};
  const MatrixDesc down{packable_type(wanted, moe_intermediate_size), hidden_size, moe_intermediate_size};
  return make(gate, gate, down);
}

ExpertLayout ExpertLayout::make(const MatrixDesc& gate, const MatrixDesc& up, const MatrixDesc& down) {
  if (up.rows != gate.rows || up.cols != gate.cols || down.rows != gate.cols || down.cols != gate.rows) {
    throw Error(ErrorKind::kBadFile,
                {.what = "an expert's matrices do not belong together",
                 .expected = "gate [I, H], up [I, H], down [H, I]",
                 .got = fmt::format("gate {}, up {}, down {}", shape_text(gate), shape_text(up), shape_text(down))});
  }
  ExpertLayout layout{.gate = gate, .up = up, .down = down};
  layout.up_offset_bytes = bytes_of(gate);  // packed sizes are multiples of 64, so the offsets are
  layout.down_offset_bytes = layout.up_offset_bytes + bytes_of(up);
  layout.record_bytes = align_up(layout.down_offset_bytes + bytes_of(down), kRecordAlignment);
  return layout;
}

ExpertView expert_view(const ExpertLayout& layout, const std::byte* record) {
  return {view_of(layout.gate, record), view_of(layout.up, record + layout.up_offset_bytes),
          view_of(layout.down, record + layout.down_offset_bytes)};
}

}  // namespace moraine::quant

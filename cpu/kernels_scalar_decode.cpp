#include "cpu/kernels_scalar_decode.h"

#include "quant/dequantize_block.h"
#include "quant/packed_blocks.h"

namespace moraine::cpu {

template <class Block>
void scalar_decode(const PackedGroup& group, int64_t first_col, int64_t col_count, float* out) noexcept {
  constexpr int64_t kColumns = Block::kElements;
  for (int64_t b = first_col / kColumns; b * kColumns < first_col + col_count; ++b) {
    const int64_t begin = b * kColumns < first_col ? first_col - b * kColumns : 0;
    const int64_t rest = first_col + col_count - b * kColumns;
    const int64_t end = rest < kColumns ? rest : kColumns;
    for (int64_t row = 0; row < kLanes; ++row) {
      Block block;
      float weights[kColumns];
      quant::gather(group.data, group.cols, b, row, block);
      quant::dequantize_block(block, weights);
      for (int64_t c = begin; c < end; ++c) out[(b * kColumns + c - first_col) * kLanes + row] = weights[c];
    }
  }
}

template void scalar_decode<quant::BlockQ8_0>(const PackedGroup&, int64_t, int64_t, float*) noexcept;
template void scalar_decode<quant::BlockQ4_0>(const PackedGroup&, int64_t, int64_t, float*) noexcept;
template void scalar_decode<quant::BlockQ4_1>(const PackedGroup&, int64_t, int64_t, float*) noexcept;
template void scalar_decode<quant::BlockQ5_0>(const PackedGroup&, int64_t, int64_t, float*) noexcept;
template void scalar_decode<quant::BlockQ5_1>(const PackedGroup&, int64_t, int64_t, float*) noexcept;
template void scalar_decode<quant::BlockQ2_K>(const PackedGroup&, int64_t, int64_t, float*) noexcept;
template void scalar_decode<quant::BlockQ3_K>(const PackedGroup&, int64_t, int64_t, float*) noexcept;
template void scalar_decode<quant::BlockQ4_K>(const PackedGroup&, int64_t, int64_t, float*) noexcept;
template void scalar_decode<quant::BlockQ5_K>(const PackedGroup&, int64_t, int64_t, float*) noexcept;
template void scalar_decode<quant::BlockQ6_K>(const PackedGroup&, int64_t, int64_t, float*) noexcept;
template void scalar_decode<quant::BlockIQ4_NL>(const PackedGroup&, int64_t, int64_t, float*) noexcept;
template void scalar_decode<quant::BlockIQ4_XS>(const PackedGroup&, int64_t, int64_t, float*) noexcept;
template void scalar_decode<quant::BlockIQ3_XXS>(const PackedGroup&, int64_t, int64_t, float*) noexcept;
template void scalar_decode<quant::BlockIQ3_S>(const PackedGroup&, int64_t, int64_t, float*) noexcept;
template void scalar_decode<quant::BlockIQ2_XXS>(const PackedGroup&, int64_t, int64_t, float*) noexcept;
template void scalar_decode<quant::BlockIQ2_XS>(const PackedGroup&, int64_t, int64_t, float*) noexcept;
template void scalar_decode<quant::BlockIQ2_S>(const PackedGroup&, int64_t, int64_t, float*) noexcept;
template void scalar_decode<quant::BlockIQ1_S>(const PackedGroup&, int64_t, int64_t, float*) noexcept;
template void scalar_decode<quant::BlockIQ1_M>(const PackedGroup&, int64_t, int64_t, float*) noexcept;

}  // namespace moraine::cpu

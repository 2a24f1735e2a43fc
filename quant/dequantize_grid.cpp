#include "quant/dequantize.h"
#include "quant/dequantize_block.h"
#include "quant/grid_octets.h"

// The grid formats of dequantize_block.h.
namespace moraine::quant {
template <IsGridFormat Block>
void dequantize_block(const Block& block, float* out) {
  const float d = f32_from_f16(grid_d(block));
  for (int octet = 0; octet < 32; ++octet) {
    const float scale = grid_scale(block, d, octet / 2);
    const uint64_t values = grid_octet(block, octet);
    for (int i = 0; i < 8; ++i) out[8 * octet + i] = scale * static_cast<float>(static_cast<int8_t>(values >> (8 * i)));
  }
}

template void dequantize_block(const BlockIQ3_XXS&, float*);
template void dequantize_block(const BlockIQ3_S&, float*);
template void dequantize_block(const BlockIQ2_XXS&, float*);
template void dequantize_block(const BlockIQ2_XS&, float*);
template void dequantize_block(const BlockIQ2_S&, float*);
template void dequantize_block(const BlockIQ1_S&, float*);
template void dequantize_block(const BlockIQ1_M&, float*);

}  // namespace moraine::quant

#include "quant/dequantize.h"
#include "quant/dequantize_block.h"
#include "quant/grid_octets.h"

// The grid formats of dequantize_block.h.
namespace moraine::quant {
namespace {

template <typename Block>
void dequantize_grid(const Block& block, float* out) {
  const float d = f32_from_f16(grid_d(block));
  for (int octet = 0; octet < 32; ++octet) {
    const float scale = grid_scale(block, d, octet / 2);
    const uint64_t values = grid_octet(block, octet);
    for (int i = 0; i < 8; ++i) out[8 * octet + i] = scale * static_cast<float>(static_cast<int8_t>(values >> (8 * i)));
  }
}

}  // namespace

void dequantize_block(const BlockIQ3_XXS& block, float* out) {
  dequantize_grid(block, out);
}

void dequantize_block(const BlockIQ3_S& block, float* out) {
  dequantize_grid(block, out);
}

void dequantize_block(const BlockIQ2_XXS& block, float* out) {
  dequantize_grid(block, out);
}

void dequantize_block(const BlockIQ2_XS& block, float* out) {
  dequantize_grid(block, out);
}

void dequantize_block(const BlockIQ2_S& block, float* out) {
  dequantize_grid(block, out);
}

void dequantize_block(const BlockIQ1_S& block, float* out) {
  dequantize_grid(block, out);
}

void dequantize_block(const BlockIQ1_M& block, float* out) {
  dequantize_grid(block, out);
}

}  // namespace moraine::quant

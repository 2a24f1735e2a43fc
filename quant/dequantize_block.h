#pragma once

#include "quant/block_formats.h"
#include "quant/grid_formats.h"

/// One block → its f32 weights, out [Block::kElements]: what the bytes of each format mean, equal to the gguf package
/// bit for bit.
namespace moraine::quant {

void dequantize_block(const BlockQ8_0& block, float* out);
void dequantize_block(const BlockQ4_0& block, float* out);
void dequantize_block(const BlockQ4_1& block, float* out);
void dequantize_block(const BlockQ5_0& block, float* out);
void dequantize_block(const BlockQ5_1& block, float* out);
void dequantize_block(const BlockQ2_K& block, float* out);
void dequantize_block(const BlockQ3_K& block, float* out);
void dequantize_block(const BlockQ4_K& block, float* out);
void dequantize_block(const BlockQ5_K& block, float* out);
void dequantize_block(const BlockQ6_K& block, float* out);
void dequantize_block(const BlockIQ4_NL& block, float* out);
void dequantize_block(const BlockIQ4_XS& block, float* out);

/// Instantiated for all grid formats (dequantize_grid.cpp).
template <IsGridFormat Block>
void dequantize_block(const Block& block, float* out);

}  // namespace moraine::quant

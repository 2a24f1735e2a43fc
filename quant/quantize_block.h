#pragma once

#include "quant/block_formats.h"

/// One block at a time: the quantizers under quantize_row() and quantize_packed(). Plain C++ without contraction or
/// reassociation, so that a weight becomes the same block on every machine.
namespace moraine::quant {

/// x [Block::kElements] → the block of least squared error that the search finds. False, with `block` unspecified, if
/// an x is not finite or too large for the format.
[[nodiscard]] bool quantize_block(const float* x, BlockQ8_0& block);
[[nodiscard]] bool quantize_block(const float* x, BlockQ4_0& block);
[[nodiscard]] bool quantize_block(const float* x, BlockQ4_1& block);
[[nodiscard]] bool quantize_block(const float* x, BlockQ5_0& block);
[[nodiscard]] bool quantize_block(const float* x, BlockQ5_1& block);
[[nodiscard]] bool quantize_block(const float* x, BlockQ2_K& block);
[[nodiscard]] bool quantize_block(const float* x, BlockQ3_K& block);
[[nodiscard]] bool quantize_block(const float* x, BlockQ4_K& block);
[[nodiscard]] bool quantize_block(const float* x, BlockQ5_K& block);
[[nodiscard]] bool quantize_block(const float* x, BlockQ6_K& block);
[[nodiscard]] bool quantize_block(const float* x, BlockIQ4_NL& block);
[[nodiscard]] bool quantize_block(const float* x, BlockIQ4_XS& block);

/// Formats with a quantizer; the grid formats can be read, not made.
template <typename Block>
concept IsQuantizable = requires(const float* x, Block block) {
  quantize_block(x, block);
};

}  // namespace moraine::quant

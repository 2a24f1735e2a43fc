#include "quant/quantize_affine.h"

#include "quant/quantize_block.h"

namespace moraine::quant {

bool quantize_block(const float* x, BlockQ2_K& block) {
  return quantize_detail::quantize_widest<quantize_detail::QuantizerQ2_K>(x, block);
}
bool quantize_block(const float* x, BlockQ4_K& block) {
  return quantize_detail::quantize_widest<quantize_detail::QuantizerQ4_K>(x, block);
}
bool quantize_block(const float* x, BlockQ5_K& block) {
  return quantize_detail::quantize_widest<quantize_detail::QuantizerQ5_K>(x, block);
}

}  // namespace moraine::quant

#pragma once

#include "quant/block_formats.h"
#include "quant/dtype.h"
#include "quant/grid_formats.h"

namespace moraine::quant {

/// Calls use(block) with an empty block of the C++ form of block format `type`, or otherwise() if it is none.
template <typename Use, typename Otherwise>
auto visit_block_format(DType type, Use use, Otherwise otherwise) {
  switch (type) {
    case DType::kQ8_0:
      return use(BlockQ8_0{});
    case DType::kQ4_0:
      return use(BlockQ4_0{});
    case DType::kQ4_1:
      return use(BlockQ4_1{});
    case DType::kQ5_0:
      return use(BlockQ5_0{});
    case DType::kQ5_1:
      return use(BlockQ5_1{});
    case DType::kQ2_K:
      return use(BlockQ2_K{});
    case DType::kQ3_K:
      return use(BlockQ3_K{});
    case DType::kQ4_K:
      return use(BlockQ4_K{});
    case DType::kQ5_K:
      return use(BlockQ5_K{});
    case DType::kQ6_K:
      return use(BlockQ6_K{});
    case DType::kIQ4_NL:
      return use(BlockIQ4_NL{});
    case DType::kIQ4_XS:
      return use(BlockIQ4_XS{});
    case DType::kIQ3_XXS:
      return use(BlockIQ3_XXS{});
    case DType::kIQ3_S:
      return use(BlockIQ3_S{});
    case DType::kIQ2_XXS:
      return use(BlockIQ2_XXS{});
    case DType::kIQ2_XS:
      return use(BlockIQ2_XS{});
    case DType::kIQ2_S:
      return use(BlockIQ2_S{});
    case DType::kIQ1_S:
      return use(BlockIQ1_S{});
    case DType::kIQ1_M:
      return use(BlockIQ1_M{});
    default:
      return otherwise();
  }
}

}  // namespace moraine::quant

#include "quant/quantize.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "quant/dequantize.h"
#include "quant/error.h"
#include "quant/quantize_block.h"
#include "quant/visit_block_format.h"

namespace moraine::quant {
namespace {

/// The Error for values[begin, begin + n), one of which cannot be written as `type`.
[[noreturn]] void throw_unrepresentable(DType type, std::span<const float> values, size_t begin, size_t n) {
  size_t worst = begin;
  for (size_t i = begin; i < begin + n; ++i) {
    if (!std::isfinite(values[i])) {
      worst = i;
      break;
    }
    if (std::abs(values[i]) > std::abs(values[worst])) worst = i;
  }
  throw Error(ErrorKind::kBadFile, {.what = fmt::format("value {} cannot be quantized to {}", worst, dtype_name(type)),
                                    .expected = "a finite number in the format's range",
                                    .got = fmt::format("{}", values[worst])});
}

[[noreturn]] void throw_not_made(DType type) {
  throw Error(ErrorKind::kUsage,
              {.what = fmt::format("weights can be read as {} but not quantized to it", dtype_name(type)),
               .expected = "Q8_0, Q6_K, Q5_K, Q4_K, IQ4_XS, Q3_K, Q2_K or another format with "
                           "a quantizer"});
}

template <typename Block>
void quantize_blocks(DType type, std::span<const float> values, std::span<std::byte> out) {
  for (size_t i = 0; i < values.size() / Block::kElements; ++i) {
    Block block;
    if (!quantize_block(values.data() + i * Block::kElements, block)) {
      throw_unrepresentable(type, values, i * Block::kElements, Block::kElements);
    }
    std::memcpy(out.data() + i * sizeof(Block), &block, sizeof(Block));
  }
}

/// `exponent_mask` is the target's infinity: a finite value that rounds to it is refused.
template <typename Convert>
void narrow_halves(DType type, std::span<const float> values, std::span<std::byte> out, uint16_t exponent_mask,
                   Convert convert) {
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t half = convert(values[i]);
    if ((half & exponent_mask) == exponent_mask) throw_unrepresentable(type, values, i, 1);
    std::memcpy(out.data() + 2 * i, &half, 2);
  }
}

}  // namespace

uint64_t row_bytes(DType type, int64_t cols) {
  const int64_t elements = block_elements(type);
  if (cols < 0 || cols % elements != 0 || cols > int64_t{1} << 48) {
    throw Error(ErrorKind::kBadFile, {.what = fmt::format("a row can't be stored as {}", dtype_name(type)),
                                      .expected = fmt::format("a multiple of {} columns", elements),
                                      .got = fmt::format("{}", cols)});
  }
  return static_cast<uint64_t>(cols / elements * block_bits(type) + 7) / 8;
}

void quantize_row(DType type, std::span<const float> values, std::span<std::byte> out) {
  MORAINE_CHECK(out.size() == row_bytes(type, static_cast<int64_t>(values.size())));
  switch (type) {
    case DType::kF32:
      for (size_t i = 0; i < values.size(); ++i) {
        if (!std::isfinite(values[i])) throw_unrepresentable(type, values, i, 1);
      }
      if (!values.empty()) std::memcpy(out.data(), values.data(), out.size());
      return;
    case DType::kF16:
      return narrow_halves(type, values, out, 0x7c00, f16_from_f32);
    case DType::kBF16:
      return narrow_halves(type, values, out, 0x7f80, bf16_from_f32);
    default:
      return visit_block_format(
          type,
          [&]<typename Block>(Block) {
            if constexpr (IsQuantizable<Block>) {
              quantize_blocks<Block>(type, values, out);
            } else {
              throw_not_made(type);
            }
          },
          [] { MORAINE_CHECK(!"a format that numbers can be quantized to"); });
  }
}

}  // namespace moraine::quant

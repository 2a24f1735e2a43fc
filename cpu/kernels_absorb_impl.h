#pragma once

#include "cpu/kernels.h"
#include "cpu/kernels_int8_formats.h"

// The product with a transposed block-format matrix (AbsorbKernel), written once over `V` as in kernels_impl.h and
// kernels_int8_impl.h. Additionally V has: subtract_int, transpose_quads, spread_quads, sum_parts.
//
// A packed operand holds 16 rows × 4 columns of bytes. One byte shuffle inside its 128-bit parts turns that into 4
// columns × 4 rows per part, and the instruction that multiplies 4 bytes per lane then sums over rows. The parts hold
// different rows of the same columns and are added at the end: integers, exact in any order.
namespace moraine::cpu {
namespace {

/// Memory of kChunkBlocks blocks: y [blocks, rows], then its two int8 parts [blocks, rows] each.
struct AbsorbRoom {
  float* y;
  int8_t* high;
  int8_t* low;

  AbsorbRoom(std::byte* scratch, int64_t rows)
      : y(reinterpret_cast<float*>(scratch)),
        high(reinterpret_cast<int8_t*>(scratch + kChunkBlocks * rows * 4)),
        low(high + kChunkBlocks * rows) {}
};
static_assert(kChunkBlocks * kAbsorbGroups * kLanes * 6 <= kAbsorbScratchBytes);

/// A block of 32 columns: what its integers stand for.
struct AbsorbScale {
  float scale;
  int32_t high_sum, low_sum;  // Σ of the parts of q, for codes that are stored with an offset
};

/// y → q = 128 · high + low of all rows.
template <class V>
AbsorbScale split_block(const float* y, int64_t rows, int8_t* high, int8_t* low) noexcept {
  auto magnitude = V::set_int(0);
  for (int64_t i = 0; i < rows; i += kLanes) {
    // Bits of magnitudes are ordered as the numbers are, infinity and NaN above all.
    magnitude = V::max_int(magnitude, V::bit_and(V::as_int(V::load(y + i)), 0x7fffffff));
  }
  const int32_t bits = V::largest(magnitude);
  float largest;
  __builtin_memcpy(&largest, &bits, 4);
  const bool finite = bits < 0x7f800000;
  if (!finite || largest < kSmallestAbsorbed) {
    __builtin_memset(high, 0, static_cast<size_t>(rows));
    __builtin_memset(low, 0, static_cast<size_t>(rows));
    return {finite ? 0.0f : __builtin_nanf(""), 0, 0};
  }
  const auto inverse = V::set(kAbsorbSteps / largest);
  auto high_sum = V::set_int(0), low_sum = V::set_int(0);
  for (int64_t i = 0; i < rows; i += kLanes) {
    const auto q = V::to_int(V::mul(V::load(y + i), inverse));
    const auto upper = V::template shift_right_arithmetic<7>(V::add_int(q, V::set_int(64)));
    const auto lower = V::subtract_int(q, V::template shift_left<7>(upper));
    V::store_int8(high + i, upper);
    V::store_int8(low + i, lower);
    high_sum = V::add_int(high_sum, upper);
    low_sum = V::add_int(low_sum, lower);
  }
  return {largest / kAbsorbSteps, V::sum(high_sum), V::sum(low_sum)};
}

/// What a sum over codes must be corrected by if the multiplied x sum up to `sum`. Sums wrap around, their total fits.
template <class V, class Format>
inline typename V::Int offset_correction(int32_t sum) noexcept {
  return V::set_int(static_cast<int32_t>(0u - static_cast<uint32_t>(Format::kOffset) * static_cast<uint32_t>(sum)));
}

/// Brings `bytes` at `data` into the cache in `steps` steps, from both halves in turn: one stream alone leaves memory
/// bandwidth unused. Null: nothing.
template <class V>
class AbsorbAhead {
 public:
  AbsorbAhead(const std::byte* data, int64_t bytes, int64_t steps) noexcept
      : at_{data, data + bytes / 128 * 64}, step_bytes_(data == nullptr ? 0 : (bytes / steps + 63) / 64 * 64) {}

  void step() noexcept {
    for (int64_t i = 0; i < step_bytes_; i += 64) V::prefetch(at_[half_] + i);
    at_[half_] += step_bytes_;
    half_ = 1 - half_;
  }

 private:
  const std::byte* at_[2];
  int64_t step_bytes_;
  int half_ = 0;
};

/// Dot products of columns 32·b … with all rows, as f32, into out[32].
template <class V, class Format>
void absorb_dots(const PackedGroups& groups, AbsorbAhead<V>& ahead, int64_t b, const int8_t* high, const int8_t* low,
                 const AbsorbScale& scale, float minimum, float* out) noexcept {
  const typename Format::ChunkScales unused = {};  // operands of these formats are made of their codes alone
  typename V::Int high_sum[kSteps], low_sum[kSteps];
#pragma GCC unroll 8
  for (int64_t j = 0; j < kSteps; ++j) high_sum[j] = low_sum[j] = V::set_int(0);
  for (int64_t g = 0; g < groups.group_count; ++g) {
    ahead.step();
    typename V::Int operands[kSteps];
    Format::operands(Format::codes(groups.data + g * groups.group_bytes, b), unused, 0, operands);
    const auto x_high = V::spread_quads(high + g * kLanes), x_low = V::spread_quads(low + g * kLanes);
#pragma GCC unroll 8
    for (int64_t j = 0; j < kSteps; ++j) {
      const auto columns = V::transpose_quads(operands[j]);
      high_sum[j] = Format::dot(high_sum[j], columns, x_high);
      low_sum[j] = Format::dot(low_sum[j], columns, x_low);
    }
  }
  const auto high_correction = offset_correction<V, Format>(scale.high_sum);
  const auto low_correction = offset_correction<V, Format>(scale.low_sum);
#pragma GCC unroll 2
  for (int64_t half = 0; half < 2; ++half) {
    const auto upper = V::add_int(V::sum_parts(high_sum + 4 * half), high_correction);
    const auto lower = V::add_int(V::sum_parts(low_sum + 4 * half), low_correction);
    const auto dots = V::to_float(V::add_int(V::template shift_left<7>(upper), lower));
    V::store(out + half * kLanes, V::fma(dots, V::set(scale.scale), V::set(minimum)));
  }
}

template <class V, class Format>
void absorb(const PackedGroups& groups, const float* x, std::byte* scratch, float* out) noexcept {
  static_assert(Format::kDots == 1 && Format::kMinima <= 1);
  const int64_t rows = groups.group_count * kLanes, blocks = groups.cols / kBlockColumns;
  const AbsorbRoom room(scratch, rows);
  AbsorbAhead<V> ahead(groups.next, groups.group_count * groups.group_bytes, blocks * groups.group_count);
  for (int64_t first = 0; first < blocks; first += kChunkBlocks) {
    const int64_t count = blocks - first < kChunkBlocks ? blocks - first : kChunkBlocks;
    typename V::Reg minima[kChunkBlocks];
    for (int64_t i = 0; i < count; ++i) minima[i] = V::zero();
    for (int64_t g = 0; g < groups.group_count; ++g) {
      typename Format::ChunkScales chunk;
      Format::open_chunk(groups.data + g * groups.group_bytes, groups.cols, first, chunk);
      const auto lanes = V::load(x + g * kLanes);
      for (int64_t i = 0; i < count; ++i) {
        const typename Format::Scales row = Format::scales(chunk, i);
        V::store(room.y + i * rows + g * kLanes, V::mul(lanes, row.scale[0]));
        if constexpr (Format::kMinima == 1) minima[i] = V::fma(row.minus_minimum[0], lanes, minima[i]);
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      int8_t* high = room.high + i * rows;
      int8_t* low = room.low + i * rows;
      const AbsorbScale scale = split_block<V>(room.y + i * rows, rows, high, low);
      absorb_dots<V, Format>(groups, ahead, first + i, high, low, scale, V::tree(minima[i]),
                             out + (first + i) * kBlockColumns);
    }
  }
}

}  // namespace
}  // namespace moraine::cpu

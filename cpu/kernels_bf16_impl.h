#pragma once

#include "cpu/kernels.h"
#include "cpu/kernels_exp.h"

// The bf16 kernels, written once over `V` as in kernels_impl.h (which says what V provides and why everything here is
// in an anonymous namespace). Additionally V has: where_less(a, b, yes, no); load_high_halves, store_high_halves: the
// upper 16 bits of 16 lanes; transpose(Int[16]): lane j of register i ↔ lane i of register j; kBf16Groups × kBf16Rows:
// the tile of multiply().
namespace moraine::cpu {
namespace {

/// Bits of f32 numbers whose upper halves are the rounded bf16 numbers; the lower halves are rubbish.
template <class V>
inline typename V::Int bf16_bits(typename V::Reg x) noexcept {
  const auto magnitude = V::as_float(V::bit_and(V::as_int(x), 0x7fffffff));
  const auto kept = V::where_less(magnitude, V::set(kSmallestBf16), V::zero(), x);
  return V::add_int(V::as_int(kept), V::set_int(0x8000));
}

/// One number of each register in every lane, the first one low.
template <class V>
inline typename V::Int bf16_pairs(typename V::Int first_bits, typename V::Int second_bits) noexcept {
  return V::bit_or(V::template shift_right<16>(first_bits), V::high_half(second_bits));
}

/// The two numbers in every lane.
template <class V>
inline typename V::Reg first_of_pairs(typename V::Int pairs) noexcept {
  return V::as_float(V::template shift_left<16>(pairs));
}
template <class V>
inline typename V::Reg second_of_pairs(typename V::Int pairs) noexcept {
  return V::as_float(V::high_half(pairs));
}

template <class V>
void bf16_round(const float* x, int64_t n, Bf16* out) noexcept {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) V::store_high_halves(out + i, bf16_bits<V>(V::load(x + i)));
  if (i < n) {
    float rest[kLanes] = {};
    Bf16 rounded[kLanes];
    for (int64_t j = i; j < n; ++j) rest[j - i] = x[j];
    V::store_high_halves(rounded, bf16_bits<V>(V::load(rest)));
    for (int64_t j = i; j < n; ++j) out[j] = rounded[j - i];
  }
}

/// `bits(from)`: sixteen numbers as upper halves.
template <class V, class Number, class Bits>
inline void bf16_pair(const Number* rows, int64_t row_stride, int64_t row_count, int64_t group_count, Bf16* out,
                      int64_t group_stride, Bits bits) noexcept {
  for (int64_t t = 0; t < row_count; t += 2) {
    const Number* first = rows + t * row_stride;
    const bool both = t + 1 < row_count;
    for (int64_t g = 0; g < group_count; ++g) {
      const auto second = both ? bits(first + row_stride + g * kLanes) : V::set_int(0);
      V::store_int(reinterpret_cast<std::byte*>(out + g * group_stride + t * kLanes),
                   bf16_pairs<V>(bits(first + g * kLanes), second));
    }
  }
}

template <class V>
void bf16_pair_rows(const Bf16* rows, int64_t row_stride, int64_t row_count, int64_t group_count, Bf16* out,
                    int64_t group_stride) noexcept {
  bf16_pair<V>(rows, row_stride, row_count, group_count, out, group_stride,
               [](const Bf16* from) { return V::load_high_halves(from); });
}

template <class V>
void bf16_pair_f32_rows(const float* rows, int64_t row_stride, int64_t row_count, int64_t group_count, Bf16* out,
                        int64_t group_stride) noexcept {
  bf16_pair<V>(rows, row_stride, row_count, group_count, out, group_stride,
               [](const float* from) { return bf16_bits<V>(V::load(from)); });
}

/// `kGroups` groups of columns × `kRows` rows. Lanes are columns; a row's numbers are broadcast.
template <class V, int kGroups, int kRows>
void bf16_tile(const Bf16* a, int64_t a_stride, const Bf16* b, int64_t group_stride, int64_t k_count, bool continued,
               float* c, int64_t c_stride) noexcept {
  if (!continued) {
    for (int r = 0; r < kRows; ++r) {
      for (int g = 0; g < kGroups; ++g) V::store(c + r * c_stride + g * kLanes, V::zero());
    }
  }
  for (int64_t block = 0; block < k_count; block += kBf16Steps) {
    alignas(64) float first[kRows][kLanes], second[kRows][kLanes];
    typename V::Reg even[kGroups][kRows], odd[kGroups][kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const auto pairs = V::load_int(reinterpret_cast<const std::byte*>(a + r * a_stride + block));
      V::store(first[r], first_of_pairs<V>(pairs));
      V::store(second[r], second_of_pairs<V>(pairs));
#pragma GCC unroll 8
      for (int g = 0; g < kGroups; ++g) even[g][r] = odd[g][r] = V::zero();
    }
    for (int64_t j = 0; j < kLanes; ++j) {
#pragma GCC unroll 8
      for (int g = 0; g < kGroups; ++g) {
        const Bf16* pair = b + g * group_stride + (block / 2 + j) * 2 * kLanes;
        const auto pairs = V::load_int(reinterpret_cast<const std::byte*>(pair));
        const auto b_even = first_of_pairs<V>(pairs), b_odd = second_of_pairs<V>(pairs);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          even[g][r] = V::fma(b_even, V::set(first[r][j]), even[g][r]);
          odd[g][r] = V::fma(b_odd, V::set(second[r][j]), odd[g][r]);
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int g = 0; g < kGroups; ++g) {
        float* sum = c + r * c_stride + g * kLanes;
        V::store(sum, V::add(V::load(sum), V::add(even[g][r], odd[g][r])));
      }
    }
  }
}

template <class V>
void bf16_multiply(const Bf16* a, int64_t a_stride, int64_t row_count, const Bf16Panel& b, int64_t k_count,
                   bool continued, float* c, int64_t c_stride) noexcept {
  constexpr int kGroups = V::kBf16Groups, kRows = V::kBf16Rows;
  static_assert(kLanes % kRows == 0);
  for (int64_t m = 0; m < row_count; m += kRows) {
    const Bf16* rows = a + m * a_stride;
    float* sums = c + m * c_stride;
    int64_t g = 0;
    for (; g + kGroups <= b.group_count; g += kGroups) {
      bf16_tile<V, kGroups, kRows>(rows, a_stride, b.data + g * b.group_stride, b.group_stride, k_count, continued,
                                   sums + g * kLanes, c_stride);
    }
    for (; g < b.group_count; ++g) {
      bf16_tile<V, 1, kRows>(rows, a_stride, b.data + g * b.group_stride, b.group_stride, k_count, continued,
                             sums + g * kLanes, c_stride);
    }
  }
}

template <class V>
void bf16_rescale(float* x, int64_t n, float factor) noexcept {
  const auto shrink = [factor](auto value) {
    const auto product = V::mul(value, V::set(factor));
    const auto magnitude = V::as_float(V::bit_and(V::as_int(product), 0x7fffffff));
    return V::where_less(magnitude, V::set(kSmallestBf16Sum), V::zero(), product);
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) V::store(x + i, shrink(V::load(x + i)));
  if (i < n) {
    float rest[kLanes] = {};
    for (int64_t j = i; j < n; ++j) rest[j - i] = x[j];
    V::store(rest, shrink(V::load(rest)));
    for (int64_t j = i; j < n; ++j) x[j] = rest[j - i];
  }
}

/// 2^x, see kernels_exp.h.
template <class V>
inline typename V::Reg exp2_of(typename V::Reg x) noexcept {
  x = V::max(V::set(kExp2Lowest), x);
  const auto t = V::add(x, V::set(kExp2Magic));
  const auto r = V::sub(x, V::sub(t, V::set(kExp2Magic)));
  auto p = V::fma(V::set(kExp2C4), r, V::set(kExp2C3));
  p = V::fma(p, r, V::set(kExp2C2));
  p = V::fma(p, r, V::set(kExp2C1));
  p = V::fma(p, r, V::set(kExp2C0));
  return V::mul(p, V::as_float(V::template shift_left<23>(V::as_int(t))));
}

/// The weights of 32 tokens for 16 rows. `sums`: of even and odd tokens.
template <class V, bool kMasked>
inline void bf16_weights(const float* scores, int64_t stride, int64_t token, typename V::Reg seen,
                         typename V::Reg scale, typename V::Reg shift, typename V::Reg (&sums)[2], Bf16* weights,
                         int64_t weight_stride) noexcept {
  const auto weight_bits = [&](int64_t t) {
    auto weight = exp2_of<V>(V::fma(V::load(scores + t * stride), scale, shift));
    if constexpr (kMasked) weight = V::where_less(V::set(static_cast<float>(token + t)), seen, weight, V::zero());
    return V::high_half(V::add_int(V::as_int(weight), V::set_int(0x8000)));
  };
  typename V::Int pairs[kLanes];
#pragma GCC unroll 16
  for (int64_t i = 0; i < kLanes; ++i) {
    const auto even = weight_bits(2 * i), odd = weight_bits(2 * i + 1);
    sums[0] = V::add(sums[0], V::as_float(even));
    sums[1] = V::add(sums[1], V::as_float(odd));
    pairs[i] = bf16_pairs<V>(even, odd);
  }
  V::transpose(pairs);
#pragma GCC unroll 16
  for (int64_t i = 0; i < kLanes; ++i)
    V::store_int(reinterpret_cast<std::byte*>(weights + i * weight_stride), pairs[i]);
}

/// Sixteen rows.
template <class V, bool kMasked>
void bf16_softmax_group(const Bf16Scores& block, int64_t first) noexcept {
  const float* scores = block.scores + first;
  const auto seen = V::load(block.seen + first);
  const auto old_max = V::load(block.max + first);
  auto max = old_max;
  for (int64_t t = 0; t < block.token_count; ++t) {
    auto score = V::load(scores + t * block.stride);
    if constexpr (kMasked) score = V::where_less(V::set(static_cast<float>(t)), seen, score, old_max);
    max = V::max(score, max);
  }
  const auto scale = V::set(block.scale);
  const auto shift = V::negate(V::mul(max, scale));
  typename V::Reg sums[2] = {V::zero(), V::zero()};
  for (int64_t t = 0; t < block.token_count; t += kBf16Steps) {
    bf16_weights<V, kMasked>(scores + t * block.stride, block.stride, t, seen, scale, shift, sums,
                             block.weights + first * block.weight_stride + t, block.weight_stride);
  }
  const auto rescale = exp2_of<V>(V::mul(V::sub(old_max, max), scale));
  V::store(block.rescale + first, rescale);
  V::store(block.sum + first, V::fma(V::load(block.sum + first), rescale, V::add(sums[0], sums[1])));
  V::store(block.max + first, max);
}

template <class V>
void bf16_softmax(const Bf16Scores& block) noexcept {
  for (int64_t first = 0; first < block.group_count * kLanes; first += kLanes) {
    const int64_t padded = (block.token_count + kBf16Steps - 1) / kBf16Steps * kBf16Steps;
    bool masked = padded != block.token_count;
    for (int64_t i = first; i < first + kLanes; ++i) masked |= block.seen[i] < static_cast<float>(block.token_count);
    if (masked) {
      bf16_softmax_group<V, true>(block, first);
    } else {
      bf16_softmax_group<V, false>(block, first);
    }
  }
}

}  // namespace
}  // namespace moraine::cpu

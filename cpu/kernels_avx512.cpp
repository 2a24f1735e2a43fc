#include <immintrin.h>

#include "cpu/kernels_impl.h"

namespace moraine::cpu {
namespace {

/// Sixteen lanes in one 512-bit register.
struct Avx512 {
  using Reg = __m512;
  using Int = __m512i;

  static constexpr int64_t kTileTokens = 12;
  /// Groups per tile: 8 … 24 accumulators of the 32 registers, enough for 2 multiply-adds per cycle at latency 4.
  static constexpr int tile_groups(int tokens) { return tokens <= 2 ? 8 : tokens <= 6 ? 4 : 2; }

  static Reg zero() { return _mm512_setzero_ps(); }
  static Reg set(float value) { return _mm512_set1_ps(value); }
  static Reg load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, Reg value) { _mm512_storeu_ps(to, value); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
  static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
  static Reg sub(Reg a, Reg b) { return _mm512_sub_ps(a, b); }
  static Reg mul(Reg a, Reg b) { return _mm512_mul_ps(a, b); }
  static Reg div(Reg a, Reg b) { return _mm512_div_ps(a, b); }
  static Reg max(Reg a, Reg b) { return _mm512_max_ps(a, b); }
  static Reg min(Reg a, Reg b) { return _mm512_min_ps(a, b); }
  static Reg negate(Reg a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
  static float square_root(float value) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(value))); }

  static Int load_int(const std::byte* from) { return _mm512_loadu_si512(from); }
  static Int load_u8(const std::byte* from) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  template <int n>
  static Int shift_left(Int a) {
    return _mm512_slli_epi32(a, n);
  }
  template <int n>
  static Int shift_right(Int a) {
    return _mm512_srli_epi32(a, n);
  }
  template <int n>
  static Int shift_right_arithmetic(Int a) {
    return _mm512_srai_epi32(a, n);
  }
  static Int bit_and(Int a, int32_t mask) { return _mm512_and_si512(a, _mm512_set1_epi32(mask)); }
  static Int bit_or(Int a, Int b) { return _mm512_or_si512(a, b); }
  static Int subtract(Int a, int32_t b) { return _mm512_sub_epi32(a, _mm512_set1_epi32(b)); }
  static Int high_half(Int a) { return _mm512_and_si512(a, _mm512_set1_epi32(-65536)); }
  static Int as_int(Reg a) { return _mm512_castps_si512(a); }
  static Reg as_float(Int a) { return _mm512_castsi512_ps(a); }
  static Reg to_float(Int a) { return _mm512_cvtepi32_ps(a); }

  static Reg scale_by_power_of_two(Reg a, Int n) {
    const Int half = _mm512_srai_epi32(n, 1);
    const auto power = [](Int e) {
      return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(e, _mm512_set1_epi32(127)), 23));
    };
    return mul(mul(a, power(half)), power(_mm512_sub_epi32(n, half)));
  }

  /// A permutation looks at the low four bits of an index alone, so a table lookup replaces mask and conversion.
  template <int shift, int offset>
  static Reg nibble(Int a) {
    const Reg table = _mm512_setr_ps(0 - offset, 1 - offset, 2 - offset, 3 - offset, 4 - offset, 5 - offset, 6 - offset,
                                     7 - offset, 8 - offset, 9 - offset, 10 - offset, 11 - offset, 12 - offset,
                                     13 - offset, 14 - offset, 15 - offset);
    return _mm512_permutexvar_ps(_mm512_srli_epi32(a, shift), table);
  }

  static Reg load_f16(const std::byte* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  /// Sign-extended to 16 bits and moved up by 7, an e4m3 byte is s s eeee mmm 0…: without the second sign bit, an f16.
  static Reg load_e4m3(const std::byte* from) {
    const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    return _mm512_cvtph_ps(_mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16(-16385)));
  }
  static bool any_e4m3_nan(const std::byte* from) {
    const __m512i magnitude = _mm512_set1_epi8(0x7f);
    return _mm512_cmpeq_epi8_mask(_mm512_and_si512(_mm512_loadu_si512(from), magnitude), magnitude) != 0;
  }

  static float tree(Reg a) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
  }

  static Int set_int(int32_t value) { return _mm512_set1_epi32(value); }
  static Int to_int(Reg a) { return _mm512_cvtps_epi32(a); }
  static Int max_int(Int a, Int b) { return _mm512_max_epi32(a, b); }
  static Int add_int(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static int32_t largest(Int a) { return _mm512_reduce_max_epi32(a); }
  static int32_t sum(Int a) { return _mm512_reduce_add_epi32(a); }
  static void store_int(std::byte* to, Int value) { _mm512_storeu_si512(to, value); }
  static void store_int8(int8_t* to, Int value) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(value));
  }
  static void prefetch(const std::byte* from) { _mm_prefetch(from, _MM_HINT_T1); }

  /// Enough independent sums for two multiplications per cycle at latency 5, in the 32 registers.
  static constexpr int kStreamRows = 8;
  static constexpr int kPanelRows = 12;
  static constexpr int kPanelTileGroups = 2;
  static constexpr bool kHasLimbs = true;
  static Int dot4(Int sum, Int codes, Int x) { return _mm512_dpbusd_epi32(sum, codes, x); }
  /// vpdpbusd wants one operand without sign: q + 128.
  static constexpr int32_t kSignedOffset = 128;
  static Int dot4_signed(Int sum, Int q, Int x) { return _mm512_dpbusd_epi32(sum, flip_signs(q), x); }
  static Int dot2(Int sum, Int a, Int b) { return _mm512_dpwssd_epi32(sum, a, b); }
  static Int flip_signs(Int q) { return _mm512_xor_si512(q, _mm512_set1_epi32(static_cast<int32_t>(0x80808080u))); }
  static Int look_up(const int8_t (&table)[16], Int codes) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table))), codes);
  }
  static Int multiply_int32(Int a, Int b) { return _mm512_mullo_epi32(a, b); }
  static Int multiply_int16(Int a, Int b) { return _mm512_mullo_epi16(a, b); }
  static Int round_multiply_int16(Int a, Int b) { return _mm512_mulhrs_epi16(a, b); }
  static Int even_bytes(Int a, Int b) { return _mm512_mask_blend_epi8(0xaaaaaaaaaaaaaaaaull, a, b); }
  static Int even_halves(Int a, Int b) { return _mm512_mask_blend_epi16(0xaaaaaaaau, a, b); }
  static Int subtract_int16(Int a, Int b) { return _mm512_sub_epi16(a, b); }
  template <int n>
  static Int shift_left_int16(Int a) {
    return _mm512_slli_epi16(a, n);
  }
  template <int n>
  static Int shift_right_arithmetic_int16(Int a) {
    return _mm512_srai_epi16(a, n);
  }

  static Reg where_less(Reg a, Reg b, Reg yes, Reg no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
  }
  static Int subtract_int(Int a, Int b) { return _mm512_sub_epi32(a, b); }
  static Int load_high_halves(const uint16_t* from) {
    return _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))), 16);
  }
  static void store_high_halves(uint16_t* to, Int bits) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
  }
  /// 16 sums, operands and broadcasts fit the 32 registers.
  static constexpr int kBf16Groups = 2;
  static constexpr int kBf16Rows = 4;
  static void transpose(Int (&a)[16]) {
    Int b[16];
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {  // inside 128-bit parts: 4 × 4 lanes
      const Int low0 = _mm512_unpacklo_epi32(a[i], a[i + 1]), high0 = _mm512_unpackhi_epi32(a[i], a[i + 1]);
      const Int low1 = _mm512_unpacklo_epi32(a[i + 2], a[i + 3]), high1 = _mm512_unpackhi_epi32(a[i + 2], a[i + 3]);
      b[i] = _mm512_unpacklo_epi64(low0, low1);
      b[i + 1] = _mm512_unpackhi_epi64(low0, low1);
      b[i + 2] = _mm512_unpacklo_epi64(high0, high1);
      b[i + 3] = _mm512_unpackhi_epi64(high0, high1);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {  // the parts themselves: b[4·p + i] part q → a[4·q + i] part p
      const Int low0 = _mm512_shuffle_i32x4(b[i], b[i + 4], 0x44), high0 = _mm512_shuffle_i32x4(b[i], b[i + 4], 0xee);
      const Int low1 = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0x44);
      const Int high1 = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0xee);
      a[i] = _mm512_shuffle_i32x4(low0, low1, 0x88);
      a[i + 4] = _mm512_shuffle_i32x4(low0, low1, 0xdd);
      a[i + 8] = _mm512_shuffle_i32x4(high0, high1, 0x88);
      a[i + 12] = _mm512_shuffle_i32x4(high0, high1, 0xdd);
    }
  }

  /// In every 128-bit part 4 rows × 4 columns of bytes become 4 columns × 4 rows.
  static Int transpose_quads(Int a) {
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_shuffle_epi8(a, _mm512_broadcast_i32x4(order));
  }
  /// Part p of the result holds bytes 4p … 4p + 3 in all its lanes.
  static Int spread_quads(const int8_t* from) {
    const __m512i all = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3), all);
  }
  /// Lane 4i + j of the result: the sum over the four parts of lane j of register i.
  static Int sum_parts(const Int* a) {
    const auto halves = [](Int first, Int second) {
      return _mm512_add_epi32(_mm512_shuffle_i32x4(first, second, 0x44), _mm512_shuffle_i32x4(first, second, 0xee));
    };
    const Int low = halves(a[0], a[1]), high = halves(a[2], a[3]);
    return _mm512_add_epi32(_mm512_shuffle_i32x4(low, high, 0x88), _mm512_shuffle_i32x4(low, high, 0xdd));
  }

  static constexpr int kTreeColumns = 16;
  /// The trees of 16 registers at once: each level halves the lanes of two registers into one.
  static void store_trees(float* to, const Reg (&sum)[kTreeColumns]) {
    Reg a[8], b[4];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {  // lanes + 8: 128-bit parts [i: 0+2, 1+3 | i+8: 0+2, 1+3]
      a[i] = add(_mm512_shuffle_f32x4(sum[i], sum[i + 8], 0x44), _mm512_shuffle_f32x4(sum[i], sum[i + 8], 0xee));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {  // lanes + 4: one part per column, in the order i, i+8, i+4, i+12
      b[i] = add(_mm512_shuffle_f32x4(a[i], a[i + 4], 0x88), _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd));
    }
    // lanes + 2, then + 1, inside the 128-bit parts: part p holds columns 4·{0, 2, 1, 3}[p] + {0, 1, 2, 3}.
    const Reg c0 = add(_mm512_shuffle_ps(b[0], b[1], 0x44), _mm512_shuffle_ps(b[0], b[1], 0xee));
    const Reg c1 = add(_mm512_shuffle_ps(b[2], b[3], 0x44), _mm512_shuffle_ps(b[2], b[3], 0xee));
    const Reg d = add(_mm512_shuffle_ps(c0, c1, 0x88), _mm512_shuffle_ps(c0, c1, 0xdd));
    store(to, _mm512_shuffle_f32x4(d, d, 0xd8));
  }
};

constexpr KernelTable kTable = make_table<Avx512>("avx512");

}  // namespace

const KernelTable& avx512_kernels() noexcept {
  return kTable;
}

}  // namespace moraine::cpu

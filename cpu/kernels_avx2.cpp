#include <immintrin.h>

#include "cpu/kernels_impl.h"

namespace moraine::cpu {
namespace {

/// Sixteen lanes in two 256-bit registers.
struct Avx2 {
  struct Reg {
    __m256 lo, hi;
  };
  struct Int {
    __m256i lo, hi;
  };

  static constexpr int64_t kTileTokens = 6;
  /// Groups per tile: 8 … 12 accumulator registers of the 16.
  static constexpr int tile_groups(int tokens) { return tokens == 1 ? 4 : tokens <= 3 ? 2 : 1; }

  static Reg zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Reg set(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
  static Reg load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
  static void store(float* to, Reg value) {
    _mm256_storeu_ps(to, value.lo);
    _mm256_storeu_ps(to + 8, value.hi);
  }
  static Reg fma(Reg a, Reg b, Reg c) { return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)}; }
  static Reg add(Reg a, Reg b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
  static Reg sub(Reg a, Reg b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
  static Reg mul(Reg a, Reg b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
  static Reg div(Reg a, Reg b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
  static Reg max(Reg a, Reg b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
  static Reg min(Reg a, Reg b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
  static Reg negate(Reg a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_xor_ps(a.lo, sign), _mm256_xor_ps(a.hi, sign)};
  }
  static float square_root(float value) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(value))); }

  static Int load_int(const std::byte* from) {
    const auto* halves = reinterpret_cast<const __m256i*>(from);
    return {_mm256_loadu_si256(halves), _mm256_loadu_si256(halves + 1)};
  }
  static Int load_u8(const std::byte* from) {
    return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))),
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + 8)))};
  }
  template <int n>
  static Int shift_left(Int a) {
    return {_mm256_slli_epi32(a.lo, n), _mm256_slli_epi32(a.hi, n)};
  }
  template <int n>
  static Int shift_right(Int a) {
    return {_mm256_srli_epi32(a.lo, n), _mm256_srli_epi32(a.hi, n)};
  }
  template <int n>
  static Int shift_right_arithmetic(Int a) {
    return {_mm256_srai_epi32(a.lo, n), _mm256_srai_epi32(a.hi, n)};
  }
  static Int bit_and(Int a, int32_t mask) {
    const __m256i wide = _mm256_set1_epi32(mask);
    return {_mm256_and_si256(a.lo, wide), _mm256_and_si256(a.hi, wide)};
  }
  static Int bit_or(Int a, Int b) { return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
  static Int subtract(Int a, int32_t b) {
    const __m256i wide = _mm256_set1_epi32(b);
    return {_mm256_sub_epi32(a.lo, wide), _mm256_sub_epi32(a.hi, wide)};
  }
  static Int high_half(Int a) { return bit_and(a, -65536); }
  static Int as_int(Reg a) { return {_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)}; }
  static Reg as_float(Int a) { return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)}; }
  static Reg to_float(Int a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }

  static __m256 scale_half(__m256 a, __m256i n) {
    const __m256i half = _mm256_srai_epi32(n, 1);
    const auto power = [](__m256i e) {
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, _mm256_set1_epi32(127)), 23));
    };
    return _mm256_mul_ps(_mm256_mul_ps(a, power(half)), power(_mm256_sub_epi32(n, half)));
  }
  static Reg scale_by_power_of_two(Reg a, Int n) { return {scale_half(a.lo, n.lo), scale_half(a.hi, n.hi)}; }

  template <int shift, int offset>
  static Reg nibble(Int a) {
    const Int number = bit_and(shift_right<shift>(a), 15);
    return to_float(subtract(number, offset));
  }

  static Reg load_f16(const std::byte* from) {
    const auto* halves = reinterpret_cast<const __m128i*>(from);
    return {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
  }
  /// Sign-extended to 16 bits and moved up by 7, an e4m3 byte is s s eeee mmm 0…: without the second sign bit, an f16.
  static Reg load_e4m3(const std::byte* from) {
    const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    const __m256i half = _mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16(-16385));
    return {_mm256_cvtph_ps(_mm256_castsi256_si128(half)), _mm256_cvtph_ps(_mm256_extracti128_si256(half, 1))};
  }
  static bool any_e4m3_nan(const std::byte* from) {
    const Int bytes = load_int(from);
    const __m256i magnitude = _mm256_set1_epi8(0x7f);
    const __m256i lo = _mm256_cmpeq_epi8(_mm256_and_si256(bytes.lo, magnitude), magnitude);
    const __m256i hi = _mm256_cmpeq_epi8(_mm256_and_si256(bytes.hi, magnitude), magnitude);
    return _mm256_movemask_epi8(_mm256_or_si256(lo, hi)) != 0;
  }

  static float tree(Reg a) {
    const __m256 eight = _mm256_add_ps(a.lo, a.hi);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
  }

  static Int set_int(int32_t value) { return {_mm256_set1_epi32(value), _mm256_set1_epi32(value)}; }
  static Int to_int(Reg a) { return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)}; }
  static Int max_int(Int a, Int b) { return {_mm256_max_epi32(a.lo, b.lo), _mm256_max_epi32(a.hi, b.hi)}; }
  static Int add_int(Int a, Int b) { return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
  static int32_t largest(Int a) {
    const __m256i eight = _mm256_max_epi32(a.lo, a.hi);
    const __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
  }
  static int32_t sum(Int a) {
    const __m256i eight = _mm256_add_epi32(a.lo, a.hi);
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
  }
  static void store_int(std::byte* to, Int value) {
    auto* halves = reinterpret_cast<__m256i*>(to);
    _mm256_storeu_si256(halves, value.lo);
    _mm256_storeu_si256(halves + 1, value.hi);
  }
  static void store_int8(int8_t* to, Int value) {
    const auto eight = [](__m256i a) {
      return _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    };
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(eight(value.lo), eight(value.hi)));
  }
  static void prefetch(const std::byte* from) { _mm_prefetch(reinterpret_cast<const char*>(from), _MM_HINT_T1); }

  static constexpr int kStreamRows = 4;
  static constexpr int kPanelRows = 4;
  static constexpr int kPanelTileGroups = 1;
  static constexpr bool kHasLimbs = false;
  /// vpmaddubsw adds two products in 16 bits: at most 2 · 128 · 127, so nothing saturates.
  static __m256i dot4_half(__m256i sum, __m256i codes, __m256i x) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(codes, x), _mm256_set1_epi16(1)));
  }
  static Int dot4(Int sum, Int codes, Int x) {
    return {dot4_half(sum.lo, codes.lo, x.lo), dot4_half(sum.hi, codes.hi, x.hi)};
  }
  /// With q + 128 two products could pass 16 bits; |q| times x with q's sign is at most 2 · 128 · 127.
  static constexpr int32_t kSignedOffset = 0;
  static Int dot4_signed(Int sum, Int q, Int x) {
    return {dot4_half(sum.lo, _mm256_abs_epi8(q.lo), _mm256_sign_epi8(x.lo, q.lo)),
            dot4_half(sum.hi, _mm256_abs_epi8(q.hi), _mm256_sign_epi8(x.hi, q.hi))};
  }
  static Int dot2(Int sum, Int a, Int b) {
    return {_mm256_add_epi32(sum.lo, _mm256_madd_epi16(a.lo, b.lo)),
            _mm256_add_epi32(sum.hi, _mm256_madd_epi16(a.hi, b.hi))};
  }
  static Int flip_signs(Int q) {
    const __m256i sign = _mm256_set1_epi32(static_cast<int32_t>(0x80808080u));
    return {_mm256_xor_si256(q.lo, sign), _mm256_xor_si256(q.hi, sign)};
  }
  static Int look_up(const int8_t (&table)[16], Int codes) {
    const __m256i values = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
    return {_mm256_shuffle_epi8(values, codes.lo), _mm256_shuffle_epi8(values, codes.hi)};
  }
  static Int multiply_int32(Int a, Int b) { return {_mm256_mullo_epi32(a.lo, b.lo), _mm256_mullo_epi32(a.hi, b.hi)}; }
  static Int multiply_int16(Int a, Int b) { return {_mm256_mullo_epi16(a.lo, b.lo), _mm256_mullo_epi16(a.hi, b.hi)}; }
  static Int round_multiply_int16(Int a, Int b) {
    return {_mm256_mulhrs_epi16(a.lo, b.lo), _mm256_mulhrs_epi16(a.hi, b.hi)};
  }
  static Int even_bytes(Int a, Int b) {
    const __m256i odd = _mm256_set1_epi16(-256);
    return {_mm256_blendv_epi8(a.lo, b.lo, odd), _mm256_blendv_epi8(a.hi, b.hi, odd)};
  }
  static Int even_halves(Int a, Int b) {
    return {_mm256_blend_epi16(a.lo, b.lo, 0xaa), _mm256_blend_epi16(a.hi, b.hi, 0xaa)};
  }
  static Int subtract_int16(Int a, Int b) { return {_mm256_sub_epi16(a.lo, b.lo), _mm256_sub_epi16(a.hi, b.hi)}; }
  template <int n>
  static Int shift_left_int16(Int a) {
    return {_mm256_slli_epi16(a.lo, n), _mm256_slli_epi16(a.hi, n)};
  }
  template <int n>
  static Int shift_right_arithmetic_int16(Int a) {
    return {_mm256_srai_epi16(a.lo, n), _mm256_srai_epi16(a.hi, n)};
  }

  static __m256 less_half(__m256 a, __m256 b, __m256 yes, __m256 no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
  }
  static Reg where_less(Reg a, Reg b, Reg yes, Reg no) {
    return {less_half(a.lo, b.lo, yes.lo, no.lo), less_half(a.hi, b.hi, yes.hi, no.hi)};
  }
  static Int subtract_int(Int a, Int b) { return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)}; }
  static Int load_high_halves(const uint16_t* from) {
    const auto* halves = reinterpret_cast<const __m128i*>(from);
    return {_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(halves)), 16),
            _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(halves + 1)), 16)};
  }
  static void store_high_halves(uint16_t* to, Int bits) {
    const __m256i packed = _mm256_packus_epi32(_mm256_srli_epi32(bits.lo, 16), _mm256_srli_epi32(bits.hi, 16));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permute4x64_epi64(packed, 0xd8));
  }
  static constexpr int kBf16Groups = 1;
  static constexpr int kBf16Rows = 2;
  static void transpose(Int (&a)[16]) {
    alignas(32) int32_t lanes[16][16];
    for (int i = 0; i < 16; ++i) store_int(reinterpret_cast<std::byte*>(lanes[i]), a[i]);
    alignas(32) int32_t turned[16];
    for (int i = 0; i < 16; ++i) {
      for (int j = 0; j < 16; ++j) turned[j] = lanes[j][i];
      a[i] = load_int(reinterpret_cast<const std::byte*>(turned));
    }
  }

  /// In every 128-bit part 4 rows × 4 columns of bytes become 4 columns × 4 rows.
  static Int transpose_quads(Int a) {
    const __m256i order =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    return {_mm256_shuffle_epi8(a.lo, order), _mm256_shuffle_epi8(a.hi, order)};
  }
  /// Part p of the result holds bytes 4p … 4p + 3 in all its lanes.
  static Int spread_quads(const int8_t* from) {
    const __m256i all = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    return {_mm256_permutevar8x32_epi32(all, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1)),
            _mm256_permutevar8x32_epi32(all, _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3))};
  }
  /// Lane 4i + j of the result: the sum over the four parts of lane j of register i.
  static Int sum_parts(const Int* a) {
    const auto one = [](Int part) {
      const __m256i two = _mm256_add_epi32(part.lo, part.hi);
      return _mm_add_epi32(_mm256_castsi256_si128(two), _mm256_extracti128_si256(two, 1));
    };
    return {_mm256_inserti128_si256(_mm256_castsi128_si256(one(a[0])), one(a[1]), 1),
            _mm256_inserti128_si256(_mm256_castsi128_si256(one(a[2])), one(a[3]), 1)};
  }

  static constexpr int kTreeColumns = 4;
  static void store_trees(float* to, const Reg (&sum)[kTreeColumns]) {
    for (int i = 0; i < kTreeColumns; ++i) to[i] = tree(sum[i]);
  }
};

constexpr KernelTable kTable = make_table<Avx2>("avx2");

}  // namespace

const KernelTable& avx2_kernels() noexcept {
  return kTable;
}

}  // namespace moraine::cpu

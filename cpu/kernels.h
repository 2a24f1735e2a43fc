#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/kernels_bf16.h"

namespace moraine::cpu {

/// Rows (or cached tokens, or columns) that one vector operation covers; equals quant::kRowGroup.
constexpr int64_t kLanes = 16;

/// `count` rounded up to whole vectors.
constexpr int64_t padded_to_lanes(int64_t count) {
  return (count + kLanes - 1) / kLanes * kLanes;
}

/// One group of 16 interleaved rows of a packed matrix (quant/packed_matrix.h).
struct PackedGroup {
  const std::byte* data = nullptr;    // the group's bytes
  int64_t cols = 0;                   // of the whole matrix
  const float* fp8_scales = nullptr;  // [ceil(cols/128)] block scales of these rows; F8_E4M3 only
};

/// Consecutive groups of a packed matrix in a block format: whole rows, one group after the other.
struct PackedGroups {
  const std::byte* data = nullptr;
  int64_t group_bytes = 0;
  int64_t group_count = 0;
  int64_t cols = 0;                 // a multiple of 32
  const std::byte* next = nullptr;  // groups of the same size that are read after these, prefetched towards the end

  /// Where group `g` lies, or, behind the last one, what is read next.
  const std::byte* group_or_next(int64_t g) const {
    return g < group_count || next == nullptr ? data + g * group_bytes : next + (g - group_count) * group_bytes;
  }
};

/// Columns of a block of codes: the smallest part of a row that the block formats have.
constexpr int64_t kBlockColumns = 32;
/// Columns that share one scale of activations and, in the int8 kernels, one scale of weights.
constexpr int64_t kInt8Columns = 256;
/// Rows of activations that lie side by side: as many as a matrix unit's tile has.
constexpr int64_t kInt8TileRows = 16;

/// Rows of activations as int8, x[i] ≈ scale · q[i] with one scale per kInt8Columns columns: a view of the memory that
/// place_int8_rows() (quantized_rows.h) lays out. Tile i holds rows 16i … 16i + 15, h of them (the last tile: what is
/// left), and has its numbers in this order:
///   q           [ceil(cols/256)][4][h][64] int8, −127 … 127, zero from column `cols` on
///   scales      [ceil(cols/256)][h] f32: max|x| / 127; 0 if all are zero, NaN if one is not finite
///   minus_sums  [ceil(cols/256)][h][16] int16: −Σ q of 16 columns each
///   minus_block_sums  [ceil(cols/256)][h][8] int16: of 32 columns each
///   pairs       [ceil(cols/256)][4][h][2][16][2] int16: of every four columns 0 and 2, then 1 and 3; null if no kernel
///               asks for them (KernelTable::int8_limbs)
struct Int8Rows {
  int64_t count = 0;
  int64_t cols = 0;  // a multiple of 32
  int8_t* q = nullptr;
  float* scales = nullptr;
  int16_t* minus_sums = nullptr;
  int16_t* minus_block_sums = nullptr;
  int16_t* pairs = nullptr;

  /// Groups of kInt8Columns columns.
  constexpr int64_t groups() const { return (cols + kInt8Columns - 1) / kInt8Columns; }
  constexpr int64_t tile_rows(int64_t row) const {
    const int64_t rest = count - row / kInt8TileRows * kInt8TileRows;
    return rest < kInt8TileRows ? rest : kInt8TileRows;
  }
  /// Where the numbers of `row` for column group `group` stand in an array with one number per row and group.
  constexpr int64_t at(int64_t row, int64_t group) const {
    const int64_t tile = row / kInt8TileRows;
    return tile * kInt8TileRows * groups() + group * tile_rows(row) + row % kInt8TileRows;
  }
  /// The same for 64 columns, `quarter` of the group, in q and in pairs.
  constexpr int64_t q_at(int64_t row, int64_t group, int64_t quarter) const {
    const int64_t tile = row / kInt8TileRows;
    return (tile * kInt8TileRows * groups() * 4 + (group * 4 + quarter) * tile_rows(row) + row % kInt8TileRows) * 64;
  }
};

/// Activations smaller than this are zero, if no larger one shares their scale.
constexpr float kSmallestActivation = 0x1p-118f;

/// 256 columns of 16 rows of weights, in the order that Int8Multiply of the same table wants: 8 KiB of integers, 16 f32
/// scales and, of formats with integer minima, 16 f32 scales of these and [4 pairs of blocks][16 rows][2] int16 minima.
constexpr int64_t kPanelWeightBytes = kInt8Columns * kLanes * 2;
constexpr int64_t kPanelD = kPanelWeightBytes;
constexpr int64_t kPanelDmin = kPanelD + kLanes * 4;
constexpr int64_t kPanelMinima = kPanelDmin + kLanes * 4;
constexpr int64_t kInt8PanelBytes = kPanelMinima + kInt8Columns / kBlockColumns * kLanes * 2;
/// Groups of rows that are unpacked at a time: with the activations of some tokens and the bytes that pass through they
/// stay in L1.
constexpr int64_t kInt8PanelGroups = 2;

/// Memory that will be needed next: `bytes` of each of kInt8PanelGroups groups, `stride` apart. Whoever gets it brings
/// it into the cache while he works, line by line from all groups in turn: the processor's own prefetcher then follows
/// several streams at a time.
struct PanelAhead {
  const std::byte* data = nullptr;
  int64_t stride = 0;
  int64_t bytes = 0;
};

/// The product of a block-format matrix with int8 activations. One definition for every number of rows, groups and
/// threads, and every instruction set (kernels_scalar_int8.cpp). For 256 columns of a row of the matrix, with `scale`
/// the f32 scale(s) and `minimum` the f32 minimum of each 16 or 32 of them (dequantize_block.h),
///   codes (weight = scale · code − minimum, all formats but the next)
///              D = (L · max|scale| + max|minimum|) / 32730, L the largest |code|
///              w = round(scale / D) · code − round(minimum / D)
///   signed bytes (weight = scale · q; Q8_0, Q5_0, IQ4_NL, IQ4_XS, IQ3_XXS, IQ3_S, IQ2_XXS, IQ1_S)
///              D = max|scale| · 128 / 32767,   w = round(q · round(scale · 32767 / max|scale|) / 128)
/// so that weight ≈ D · w with |w| ≤ 32767. Their integer dot product with 256 activations is exact, and over these
/// groups, ascending, acc = fma(f32(Σ w·q) · D, scale of the activations, acc).
/// Q4_K and Q5_K have scales and minima of 6 bits, which are used as they are: weight = d · scale · code − dmin ·
/// minimum, both sums exact, acc = fma(fma(f32(Σ minimum · −q), dmin, f32(Σ scale · code · q) · d), scale of the
/// activations, acc). The matrix's scales are finite (checked when weights are loaded).
struct Int8Format {
  /// The most rows for which `stream` is faster than unpacking. 0: there is no `stream`.
  int64_t stream_rows = 0;
  /// out[t][16g + lane] = the dot product of row 16g + lane with activations t, for all columns and all of `rows`.
  /// Reads weights once, from memory.
  void (*stream)(const PackedGroups& groups, const Int8Rows& rows, float* out, int64_t out_stride) noexcept = nullptr;

  /// Whether minima are summed apart from codes (KernelTable::int8_multiply_minima).
  bool minima = false;
  /// Bytes of 256 columns of 16 rows, which follow one another from the group's start on, without what trails them.
  int64_t column_bytes = 0;
  /// Unpacks columns 256·group … of 16 rows into `panel` (kInt8PanelBytes, aligned to 64). Behind the last column of
  /// the matrix the panel keeps what it had: activations are zero there. `ahead` is brought into the cache meanwhile.
  void (*unpack)(const std::byte* data, int64_t cols, int64_t group, const PanelAhead& ahead,
                 std::byte* panel) noexcept = nullptr;
  /// The same in the order of matrix units. Null where there are none.
  void (*unpack_limbs)(const std::byte* data, int64_t cols, int64_t group, const PanelAhead& ahead,
                       std::byte* panel) noexcept = nullptr;
};

/// acc[t][16g + lane] continued by 256 columns `group` of all rows: `panels` has group_count ≤ kInt8PanelGroups
/// unpacked groups, one after the other. `ahead` is brought into the cache meanwhile.
using Int8Multiply = void (*)(const std::byte* panels, int64_t group_count, const Int8Rows& rows, int64_t group,
                              const PanelAhead& ahead, float* acc, int64_t acc_stride) noexcept;

/// f32 operand of multiply(): element (group g, step k, lane) at data[g · group_stride + k · k_stride + lane].
struct Panel {
  const float* data = nullptr;
  int64_t group_stride = 0;
  int64_t k_stride = kLanes;
  int64_t group_count = 0;
  /// The panel comes from memory: so many floats ahead of what is read are brought into the cache. 0: it is there.
  int64_t ahead = 0;
};

/// What the online softmax keeps of a row between blocks of scores.
struct SoftmaxState {
  float max = -__builtin_inff();
  float sum = 0.0f;
};

/// Columns [first_col, first_col + col_count) of a group as f32, exactly as quant::dequantize_packed defines them.
/// first_col is a multiple of 32, and so is col_count unless it ends the row.
using DecodeKernel = void (*)(const PackedGroup& group, int64_t first_col, int64_t col_count,
                              float* out /* [col_count, 16] */) noexcept;

/// The arithmetic of one instruction set. All tables give the same bits: every f32 operation and its order is part of
/// each function's definition (kernels_scalar.cpp is that definition in code), and lanes never mix except in tree(),
/// the sum of 16 lanes by halving: l[i] += l[i+8], then i+4, i+2, i+1.
struct KernelTable {
  const char* name = nullptr;

  /// What a thread calls before and after a piece of work with int8_multiply and bf16.multiply (KernelScope); null:
  /// nothing.
  void (*begin)() noexcept = nullptr;
  void (*end)() noexcept = nullptr;

  DecodeKernel decode_f16 = nullptr;
  DecodeKernel decode_bf16 = nullptr;
  DecodeKernel decode_f8_e4m3 = nullptr;
  DecodeKernel decode_q8_0 = nullptr;
  DecodeKernel decode_q4_0 = nullptr;
  DecodeKernel decode_q4_1 = nullptr;
  DecodeKernel decode_q5_0 = nullptr;
  DecodeKernel decode_q5_1 = nullptr;
  DecodeKernel decode_q2_k = nullptr;
  DecodeKernel decode_q3_k = nullptr;
  DecodeKernel decode_q4_k = nullptr;
  DecodeKernel decode_q5_k = nullptr;
  DecodeKernel decode_q6_k = nullptr;
  DecodeKernel decode_iq4_nl = nullptr;
  DecodeKernel decode_iq4_xs = nullptr;
  DecodeKernel decode_iq3_xxs = nullptr;
  DecodeKernel decode_iq3_s = nullptr;
  DecodeKernel decode_iq2_xxs = nullptr;
  DecodeKernel decode_iq2_xs = nullptr;
  DecodeKernel decode_iq2_s = nullptr;
  DecodeKernel decode_iq1_s = nullptr;
  DecodeKernel decode_iq1_m = nullptr;

  Int8Format int8_q8_0;
  Int8Format int8_q4_0;
  Int8Format int8_q4_1;
  Int8Format int8_q5_0;
  Int8Format int8_q5_1;
  Int8Format int8_q2_k;
  Int8Format int8_q3_k;
  Int8Format int8_q4_k;
  Int8Format int8_q5_k;
  Int8Format int8_q6_k;
  Int8Format int8_iq4_nl;
  Int8Format int8_iq4_xs;
  Int8Format int8_iq3_xxs;
  Int8Format int8_iq3_s;
  Int8Format int8_iq2_xxs;
  Int8Format int8_iq2_xs;
  Int8Format int8_iq2_s;
  Int8Format int8_iq1_s;
  Int8Format int8_iq1_m;

  /// The largest Int8Format::stream_rows. So many rows need Int8Rows::pairs.
  int64_t int8_stream_rows = 0;
  /// Whether int8_multiply() wants panels of Int8Format::unpack_limbs, and no pairs; else of unpack, and pairs.
  bool int8_limbs = false;
  Int8Multiply int8_multiply = nullptr;
  /// The same for the formats with Int8Format::minima.
  Int8Multiply int8_multiply_minima = nullptr;

  /// x[cols] → row `row` of `rows`. For 256 columns, with m = max|x|: scale = m / 127, q = x · (127 / m) rounded half
  /// to even. If m < kSmallestActivation, where 127 / m could overflow, they count as zero; with a NaN or infinity
  /// among them the scale is NaN and q = 0, so that every result they touch is NaN.
  void (*quantize_activations)(const float* x, const Int8Rows& rows, int64_t row) noexcept = nullptr;

  /// acc[t][16g + lane] = fma(panel(g, k, lane), x[t][k], acc[t][16g + lane]) for k = 0 … k_count − 1: one chain per
  /// element, which a later call may continue.
  void (*multiply)(const Panel& panel, const float* x, int64_t x_stride, int64_t token_count, int64_t k_count,
                   float* acc, int64_t acc_stride) noexcept = nullptr;

  /// out[t][k] = tree over lanes of the chain over g of fma(panel(g, k, lane), weights[t][16g + lane], ·): rows of the
  /// panel weighted and summed, the product with the transposed matrix.
  void (*combine_rows)(const Panel& panel, const float* weights, int64_t weights_stride, int64_t token_count,
                       int64_t k_count, float* out, int64_t out_stride) noexcept = nullptr;

  /// y = (x · r) · w with r = 1 / sqrt(tree(Σ x²) / n + eps); lane l sums x[i]² for i ≡ l mod 16, ascending. y may be
  /// x.
  void (*rms_norm)(const float* x, const float* w, int64_t n, float eps, float* y) noexcept = nullptr;

  /// out = (z / (1 + exp(−z))) · up with z = gate. out may be gate or up.
  void (*silu_multiply)(const float* gate, const float* up, int64_t n, float* out) noexcept = nullptr;

  /// Takes n ≥ 1 more scores of a row into its softmax: s := s · scale; the maximum rises to m'; scores become exp(s −
  /// m'); sum := sum · a + tree(Σ). Returns a = exp(m − m'), by which the row's earlier weighted sum must be
  /// multiplied.
  float (*softmax_step)(float* scores, int64_t n, float scale, SoftmaxState& state) noexcept = nullptr;

  Bf16Kernels bf16;
};

/// While it lives, this thread may use every function of the table. One at a time per thread.
class KernelScope {
 public:
  explicit KernelScope(const KernelTable& kernels) noexcept : end_(kernels.end) {
    if (kernels.begin != nullptr) kernels.begin();
  }
  ~KernelScope() {
    if (end_ != nullptr) end_();
  }
  KernelScope(const KernelScope&) = delete;
  KernelScope& operator=(const KernelScope&) = delete;

 private:
  void (*end_)() noexcept;
};

/// The definition, for any x86-64.
const KernelTable& scalar_kernels() noexcept;
/// Needs AVX2, FMA and F16C.
const KernelTable& avx2_kernels() noexcept;
/// Needs AVX-512 F, BW, DQ, VL and VNNI.
const KernelTable& avx512_kernels() noexcept;
/// Needs what avx512_kernels() needs and amx_usable().
const KernelTable& amx_kernels() noexcept;

}  // namespace moraine::cpu

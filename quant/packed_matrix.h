#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "quant/dtype.h"

namespace moraine::quant {

/// Rows of a matrix are interleaved by this many, one per 32-bit SIMD lane.
constexpr int64_t kRowGroup = 16;
/// FP8 block scales cover squares of this side.
constexpr int64_t kFp8Block = 128;

/// A weight matrix W [rows = out, cols = in] in Moraine's kernel-friendly order: the same numbers as the source's, rows
/// in groups of 16 (the last group padded with zero rows), all bytes in one buffer aligned to 64. Computed as y = x·Wᵀ.
///
/// Per row group g (rows 16g … 16g+15), with r the row inside the group and c the column; group stride is
/// packed_group_bytes(type, cols), a multiple of 64:
///   F32      [cols][16 r] f32
///   F16      [cols][16 r] f16
///   BF16     [ceil(cols/2)][16 r][2 c] bf16                (odd cols: last pair padded with 0)
///   F8_E4M3  [cols][16 r] e4m3fn bytes                 after all groups: [ceil(rows/128)][ceil(cols/128)] f32 scales
///   Q8_0     [cols/32][8][16 r][4 c] int8              then [cols/32][16 r] f16 scales
///   Q4_0, IQ4_NL   [cols/32] N                         then [cols/32][16 r] f16 scales
///   Q4_1     [cols/32] N                               then [cols/32]{ [16 r] f16 d, [16 r] f16 m }
///   Q5_0     [cols/32]{ N, B }                         then [cols/32][16 r] f16 scales
///   Q5_1     [cols/32]{ N, B }                         then [cols/32]{ [16 r] f16 d, [16 r] f16 m }
///   Q2_K     [cols/256]{ [16 r] f16 d, [16 r] f16 dmin, [16][16 r] scale/min bytes, [8] P }
///   Q3_K     [cols/256]{ [12][16 r] packed 6-bit scales, [8]{ P, B } }      then [cols/256][16 r] f16 d
///   Q4_K     [cols/256]{ [16 r] f16 d, [16 r] f16 dmin, [12][16 r] packed 6-bit scales/mins, [8] N }
///   Q5_K     [cols/256]{ [16 r] f16 d, [16 r] f16 dmin, [12][16 r] packed 6-bit scales/mins, [8]{ N, B } }
///   Q6_K     [cols/256]{ [16][16 r] int8 scales, [8]{ N, P } }              then [cols/256][16 r] f16 d
///   IQ4_XS   [cols/256]{ [16 r] f16 d, [2][16 r] scale high bits, [4][16 r] scale low bits, [8] N }
///   IQ1 … IQ3  [cols/256][16 r] blocks as in GGUF files
/// with, for 32 columns, codes cut into
///   N  [4][16 r][4] bytes, the low 4 bits: byte j of quad i has column 8i+j in its low, column 8i+j+4 in its high
///   nibble P  [2][16 r][4] bytes, two bits: byte j of quad q has column 16q+4p+j in bits 2p, 2p+1 B  [16 r][4] bytes,
///   the top bit: byte j has column 4i+j in bit i
/// so that one 64-byte load gives 16 rows × 8, 16 or 32 columns, and a mask and a shift give operands of 16 rows × 4
/// neighbouring columns for VNNI. Scale bytes keep GGUF's own packing, byte by byte.
struct PackedView {
  DType type = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  const std::byte* data = nullptr;  // packed_bytes(type, rows, cols), aligned to 64

  int64_t groups() const { return (rows + kRowGroup - 1) / kRowGroup; }
};

/// Bytes of one group of 16 rows.
uint64_t packed_group_bytes(DType type, int64_t cols);
/// Bytes of the whole matrix, a multiple of 64. Throws Error(kBadFile) if rows or cols are not positive, cols is no
/// multiple of the block, or the size overflows 2^48.
uint64_t packed_bytes(DType type, int64_t rows, int64_t cols);
/// Where the f32 block scales of an F8_E4M3 matrix begin in its buffer.
uint64_t packed_fp8_scales_offset(int64_t rows, int64_t cols);

/// Row-major source blocks (plain numbers or GGUF blocks of `type`, rows contiguous) → packed. Lossless.
/// `out.size()` must be packed_bytes(...). Not for F8_E4M3 (see pack_fp8).
void pack_matrix(DType type, std::span<const std::byte> row_major, int64_t rows, int64_t cols,
                 std::span<std::byte> out);
/// The same for e4m3 bytes [rows, cols] with weight_scale_inv [ceil(rows/128), ceil(cols/128)].
void pack_fp8(std::span<const std::byte> e4m3, std::span<const float> scale_inv, int64_t rows, int64_t cols,
              std::span<std::byte> out);
/// f32 [rows, cols] → quantized to `type` (F32, F16, BF16, block formats but IQ1 … IQ3) and packed.
void quantize_packed(DType type, std::span<const float> values, int64_t rows, int64_t cols, std::span<std::byte> out);

/// The inverse of pack_matrix, for export and tests (F8_E4M3: the e4m3 bytes alone).
void unpack_matrix(const PackedView& matrix, std::span<std::byte> row_major);
/// Reference meaning of rows [first_row, first_row + row_count): f32 [row_count, cols]. This is the definition that
/// every kernel is tested against. An F8 weight is e4m3 × scale rounded once to f32; block formats: dequantize_block.h.
void dequantize_packed(const PackedView& matrix, int64_t first_row, int64_t row_count, std::span<float> out);

/// The format that stands in when rows of `cols` are no multiple of `wanted`'s block: Q6_K →
/// Q8_0, Q5_K → Q5_0, Q4_K → Q4_0, smaller ones → IQ4_NL (all 32-wide); a column count that is no multiple of 32 either
/// → BF16. Otherwise `wanted` itself.
DType packable_type(DType wanted, int64_t cols);

}  // namespace moraine::quant

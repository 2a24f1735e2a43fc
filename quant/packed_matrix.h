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
///   BF16     [ceil(cols/2)][16 r][2 c] bf16                (odd cols: last pair padded with 0)
///   F8_E4M3  [cols][16 r] e4m3fn bytes                 after all groups: [ceil(rows/128)][ceil(cols/128)] f32 scales
///   Q8_0     [cols/32][8][16 r][4 c] int8              then [cols/32][16 r] f16 scales
///   Q4_0     [cols/32][4][16 r][4] bytes               then [cols/32][16 r] f16 scales
///   Q4_K     [cols/256]{ [16 r] f16 d, [16 r] f16 dmin, [12][16 r] packed 6-bit scales/mins, [32][16 r][4] bytes }
/// The 4 bytes of a row in Q4_0 and Q4_K hold 8 consecutive columns: byte j has column j in its low nibble and column
/// j+4 in its high nibble, so one 64-byte load gives 16 rows × 8 columns and two masks unpack it for VNNI.
/// The 12 scale bytes of a Q4_K row keep GGUF's own 6-bit packing, byte by byte.
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
/// f32 [rows, cols] → quantized to `type` (F32, BF16, Q8_0, Q4_0, Q4_K) and packed.
void quantize_packed(DType type, std::span<const float> values, int64_t rows, int64_t cols, std::span<std::byte> out);

/// The inverse of pack_matrix, for export and tests (F8_E4M3: the e4m3 bytes alone).
void unpack_matrix(const PackedView& matrix, std::span<std::byte> row_major);
/// Reference meaning of rows [first_row, first_row + row_count): f32 [row_count, cols]. This is the definition that
/// every kernel is tested against. An F8 weight is e4m3 × scale rounded once to f32; Q8_0, Q4_0: d·q; Q4_K: (d·sc)·q −
/// (dmin·m), each product rounded to f32.
void dequantize_packed(const PackedView& matrix, int64_t first_row, int64_t row_count, std::span<float> out);

/// The format that stands in when rows of `cols` are no multiple of `wanted`'s block: Q4_K → Q4_0 (32-wide); a column
/// count that is no multiple of 32 either → BF16. Otherwise `wanted` itself.
DType packable_type(DType wanted, int64_t cols);

}  // namespace moraine::quant

#pragma once

#include <cstdint>

#include "cpu/kernels.h"
#include "cpu/row_view.h"
#include "cpu/workers.h"
#include "quant/packed_matrix.h"

namespace moraine::cpu {

/// Row groups that one task multiplies at a time: 128 rows, whose decoded weights of one column block stay in L2.
constexpr int64_t kPanelGroups = 8;
/// Row groups that one task streams at a time: every task begins with misses, which fewer hundred KB don't hide.
constexpr int64_t kStreamGroups = 32;
/// Tokens that a dense matrix is multiplied with at a time: with more, activations and sums fall out of the caches,
/// which costs more than reading the matrix again.
constexpr int64_t kDenseTokens = 512;

/// Group `g` of a packed matrix.
PackedGroup packed_group(const quant::PackedView& matrix, int64_t g);

/// Groups [first_group, +group_count) of a packed matrix in a block format.
PackedGroups packed_groups(const quant::PackedView& matrix, int64_t first_group, int64_t group_count);

/// Columns [first_col, first_col + col_count) of groups [first_group, +group_count) as f32: decoded into
/// scratch.weights, or in place if the matrix is F32.
Panel decode_panel(const KernelTable& kernels, WorkerScratch& scratch, const quant::PackedView& matrix,
                   int64_t first_group, int64_t group_count, int64_t first_col, int64_t col_count);

/// One thread's part of x·Wᵀ with f32 activations: acc[t][16i + lane] = the dot product of x row t with row
/// 16(first_group + i) + lane of W, for `group_count` groups. Each element is one chain of f32 fused multiply-adds over
/// the columns, ascending, whatever the number of tokens, groups or threads: results are the same bits for any batch.
/// Uses scratch.weights and x_tile.
void multiply_groups(const KernelTable& kernels, WorkerScratch& scratch, const quant::PackedView& matrix,
                     int64_t first_group, int64_t group_count, const RowView& x, int64_t token_count, float* acc,
                     int64_t acc_stride);

/// How `matrix` is multiplied with int8 activations, if its block format can be and the workers are not precise. Null:
/// f32 activations (multiply_groups).
const Int8Format* int8_format(const Workers& workers, const quant::PackedView& matrix);

/// multiply_groups() with int8 activations of matrix.cols columns. Every element has one definition (kernels.h),
/// whatever the number of rows, groups or threads. `next`: groups of the same size that this thread multiplies next;
/// null: those behind these. Uses scratch.weights.
void multiply_groups_int8(const KernelTable& kernels, const Int8Format& format, WorkerScratch& scratch,
                          const quant::PackedView& matrix, int64_t first_group, int64_t group_count, const Int8Rows& x,
                          float* acc, int64_t acc_stride, const std::byte* next = nullptr);

/// y[t] = x[t]·Wᵀ on all workers, with int8 activations where int8_format() has one. x rows have matrix.cols values, y
/// rows matrix.rows, y_stride apart.
void matmul(Workers& workers, const quant::PackedView& matrix, const RowView& x, int64_t token_count, float* y,
            int64_t y_stride);

/// Row groups for one task that multiplies `token_count` tokens, so that `total_groups` give every thread a few tasks.
int64_t groups_per_task(const Workers& workers, int64_t total_groups, int64_t token_count);

}  // namespace moraine::cpu

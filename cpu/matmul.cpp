#include "cpu/matmul.h"

#include <algorithm>
#include <cstring>

#include "cpu/quantized_rows.h"
#include "quant/error.h"

namespace moraine::cpu {
namespace {

/// Columns decoded at a time. Few tokens: 8 groups × 64 columns of f32 stay in L1 between decoding and multiplying.
/// More tokens: 256 columns in L2, so that loading and storing accumulators costs nothing.
constexpr int64_t kFewTokens = 4;
constexpr int64_t kFewTokensColumns = 64;
constexpr int64_t kManyTokensColumns = 256;
/// Tokens whose activations are copied together, so that their rows lie dense in L1 whatever their stride.
constexpr int64_t kTileTokens = 12;
/// How many panels ahead packed weights are prefetched. One is too late for what is brought last.
constexpr int64_t kPanelsAhead = 2;
static_assert(kInt8PanelGroups == 2, "a quarter of what is ahead goes to each group's unpacking, half to multiplying");
/// How far ahead f32 weights are prefetched.
constexpr int64_t kFloatsAhead = 512;

DecodeKernel decoder(const KernelTable& kernels, quant::DType type) {
  switch (type) {
    case quant::DType::kF16:
      return kernels.decode_f16;
    case quant::DType::kBF16:
      return kernels.decode_bf16;
    case quant::DType::kF8E4M3:
      return kernels.decode_f8_e4m3;
    case quant::DType::kQ8_0:
      return kernels.decode_q8_0;
    case quant::DType::kQ4_0:
      return kernels.decode_q4_0;
    case quant::DType::kQ4_1:
      return kernels.decode_q4_1;
    case quant::DType::kQ5_0:
      return kernels.decode_q5_0;
    case quant::DType::kQ5_1:
      return kernels.decode_q5_1;
    case quant::DType::kQ2_K:
      return kernels.decode_q2_k;
    case quant::DType::kQ3_K:
      return kernels.decode_q3_k;
    case quant::DType::kQ4_K:
      return kernels.decode_q4_k;
    case quant::DType::kQ5_K:
      return kernels.decode_q5_k;
    case quant::DType::kQ6_K:
      return kernels.decode_q6_k;
    case quant::DType::kIQ4_NL:
      return kernels.decode_iq4_nl;
    case quant::DType::kIQ4_XS:
      return kernels.decode_iq4_xs;
    case quant::DType::kIQ3_XXS:
      return kernels.decode_iq3_xxs;
    case quant::DType::kIQ3_S:
      return kernels.decode_iq3_s;
    case quant::DType::kIQ2_XXS:
      return kernels.decode_iq2_xxs;
    case quant::DType::kIQ2_XS:
      return kernels.decode_iq2_xs;
    case quant::DType::kIQ2_S:
      return kernels.decode_iq2_s;
    case quant::DType::kIQ1_S:
      return kernels.decode_iq1_s;
    case quant::DType::kIQ1_M:
      return kernels.decode_iq1_m;
    default:
      MORAINE_CHECK(!"a packed matrix of a type that kernels exist for");
      return nullptr;
  }
}

}  // namespace

PackedGroup packed_group(const quant::PackedView& matrix, int64_t g) {
  const auto index = static_cast<uint64_t>(g);
  PackedGroup group{.data = matrix.data + index * quant::packed_group_bytes(matrix.type, matrix.cols),
                    .cols = matrix.cols};
  if (matrix.type == quant::DType::kF8E4M3) {
    const std::byte* scales = matrix.data + quant::packed_fp8_scales_offset(matrix.rows, matrix.cols);
    const int64_t blocks_per_row = (matrix.cols + quant::kFp8Block - 1) / quant::kFp8Block;
    group.fp8_scales = reinterpret_cast<const float*>(scales) + g * kLanes / quant::kFp8Block * blocks_per_row;
  }
  return group;
}

PackedGroups packed_groups(const quant::PackedView& matrix, int64_t first_group, int64_t group_count) {
  return {.data = packed_group(matrix, first_group).data,
          .group_bytes = static_cast<int64_t>(quant::packed_group_bytes(matrix.type, matrix.cols)),
          .group_count = group_count,
          .cols = matrix.cols};
}

Panel decode_panel(const KernelTable& kernels, WorkerScratch& scratch, const quant::PackedView& matrix,
                   int64_t first_group, int64_t group_count, int64_t first_col, int64_t col_count) {
  if (matrix.type == quant::DType::kF32) {
    const auto* values = reinterpret_cast<const float*>(matrix.data);
    const int64_t group_stride =
        static_cast<int64_t>(quant::packed_group_bytes(matrix.type, matrix.cols) / sizeof(float));
    return {.data = values + first_group * group_stride + first_col * kLanes,
            .group_stride = group_stride,
            .k_stride = kLanes,
            .group_count = group_count,
            .ahead = kFloatsAhead};
  }
  const DecodeKernel decode = decoder(kernels, matrix.type);
  float* weights = scratch.weights.get(group_count * col_count * kLanes);
  for (int64_t g = 0; g < group_count; ++g) {
    decode(packed_group(matrix, first_group + g), first_col, col_count, weights + g * col_count * kLanes);
  }
  return {.data = weights, .group_stride = col_count * kLanes, .k_stride = kLanes, .group_count = group_count};
}

void multiply_groups(const KernelTable& kernels, WorkerScratch& scratch, const quant::PackedView& matrix,
                     int64_t first_group, int64_t group_count, const RowView& x, int64_t token_count, float* acc,
                     int64_t acc_stride) {
  const int64_t columns = token_count <= kFewTokens ? kFewTokensColumns : kManyTokensColumns;
  float* tile = scratch.x_tile.get(kTileTokens * columns);
  for (int64_t t = 0; t < token_count; ++t) std::fill_n(acc + t * acc_stride, group_count * kLanes, 0.0f);
  for (int64_t group = 0; group < group_count; group += kPanelGroups) {
    const int64_t panel_groups = std::min(kPanelGroups, group_count - group);
    for (int64_t col = 0; col < matrix.cols; col += columns) {
      const int64_t col_count = std::min(columns, matrix.cols - col);
      const Panel panel = decode_panel(kernels, scratch, matrix, first_group + group, panel_groups, col, col_count);
      for (int64_t t = 0; t < token_count; t += kTileTokens) {
        const int64_t tokens = std::min(kTileTokens, token_count - t);
        for (int64_t i = 0; i < tokens; ++i) {
          std::memcpy(tile + i * columns, x.row(t + i) + col, static_cast<size_t>(col_count) * sizeof(float));
        }
        kernels.multiply(panel, tile, columns, tokens, col_count, acc + t * acc_stride + group * kLanes, acc_stride);
      }
    }
  }
}

const Int8Format* int8_format(const Workers& workers, const quant::PackedView& matrix) {
  if (workers.precise()) return nullptr;
  switch (matrix.type) {
    case quant::DType::kQ8_0:
      return &workers.kernels().int8_q8_0;
    case quant::DType::kQ4_0:
      return &workers.kernels().int8_q4_0;
    case quant::DType::kQ4_1:
      return &workers.kernels().int8_q4_1;
    case quant::DType::kQ5_0:
      return &workers.kernels().int8_q5_0;
    case quant::DType::kQ5_1:
      return &workers.kernels().int8_q5_1;
    case quant::DType::kQ2_K:
      return &workers.kernels().int8_q2_k;
    case quant::DType::kQ3_K:
      return &workers.kernels().int8_q3_k;
    case quant::DType::kQ4_K:
      return &workers.kernels().int8_q4_k;
    case quant::DType::kQ5_K:
      return &workers.kernels().int8_q5_k;
    case quant::DType::kQ6_K:
      return &workers.kernels().int8_q6_k;
    case quant::DType::kIQ4_NL:
      return &workers.kernels().int8_iq4_nl;
    case quant::DType::kIQ4_XS:
      return &workers.kernels().int8_iq4_xs;
    case quant::DType::kIQ3_XXS:
      return &workers.kernels().int8_iq3_xxs;
    case quant::DType::kIQ3_S:
      return &workers.kernels().int8_iq3_s;
    case quant::DType::kIQ2_XXS:
      return &workers.kernels().int8_iq2_xxs;
    case quant::DType::kIQ2_XS:
      return &workers.kernels().int8_iq2_xs;
    case quant::DType::kIQ2_S:
      return &workers.kernels().int8_iq2_s;
    case quant::DType::kIQ1_S:
      return &workers.kernels().int8_iq1_s;
    case quant::DType::kIQ1_M:
      return &workers.kernels().int8_iq1_m;
    default:
      return nullptr;
  }
}

void multiply_groups_int8(const KernelTable& kernels, const Int8Format& format, WorkerScratch& scratch,
                          const quant::PackedView& matrix, int64_t first_group, int64_t group_count, const Int8Rows& x,
                          float* acc, int64_t acc_stride, const std::byte* next) {
  PackedGroups groups = packed_groups(matrix, first_group, group_count);
  groups.next = next;
  if (x.count <= format.stream_rows) {
    format.stream(groups, x, acc, acc_stride);
    return;
  }
  const auto unpack = kernels.int8_limbs ? format.unpack_limbs : format.unpack;
  const Int8Multiply multiply = format.minima ? kernels.int8_multiply_minima : kernels.int8_multiply;
  auto* panels = reinterpret_cast<std::byte*>(
      scratch.weights.get(kInt8PanelGroups * kInt8PanelBytes / static_cast<int64_t>(sizeof(float))));
  for (int64_t t = 0; t < x.count; ++t) std::fill_n(acc + t * acc_stride, group_count * kLanes, 0.0f);
  for (int64_t first = 0; first < group_count; first += kInt8PanelGroups) {
    const int64_t count = std::min(kInt8PanelGroups, group_count - first);
    for (int64_t columns = 0; columns < x.groups(); ++columns) {
      const std::byte* group = groups.data + first * groups.group_bytes;
      const int64_t later = columns + kPanelsAhead;
      const std::byte* ahead = groups.group_or_next(first + later / x.groups() * kInt8PanelGroups) +
                               later % x.groups() * format.column_bytes;
      const auto part_ahead = [&](int64_t quarter, int64_t quarters) {
        const int64_t bytes = format.column_bytes / 4;
        return PanelAhead{.data = ahead + quarter * bytes, .stride = groups.group_bytes, .bytes = quarters * bytes};
      };
      for (int64_t g = 0; g < count; ++g) {
        unpack(group + g * groups.group_bytes, matrix.cols, columns, part_ahead(g, 1), panels + g * kInt8PanelBytes);
      }
      const PanelAhead rest = part_ahead(2, 2);
      multiply(panels, count, x, columns, rest, acc + first * kLanes, acc_stride);
    }
  }
}

int64_t groups_per_task(const Workers& workers, int64_t total_groups, int64_t token_count) {
  constexpr int64_t kTasksPerThread = 4;
  const int64_t most = token_count <= workers.kernels().int8_stream_rows ? kStreamGroups : kPanelGroups;
  if (workers.threads() == 1) return most;
  return std::clamp<int64_t>(total_groups / (kTasksPerThread * workers.threads()), 1, most);
}

namespace {

/// matmul() of at most kDenseTokens tokens.
void multiply_tokens(Workers& workers, const quant::PackedView& matrix, const RowView& x, int64_t token_count, float* y,
                     int64_t y_stride) {
  const int64_t step = groups_per_task(workers, matrix.groups(), token_count);
  const int64_t tasks = (matrix.groups() + step - 1) / step;
  const Int8Format* int8 = int8_format(workers, matrix);
  QuantizedRows rows_int8;
  if (int8 != nullptr) {
    rows_int8.add(x, token_count, matrix.cols);
    rows_int8.quantize(workers, workers.input_activations());
  }
  workers.parallel_for(tasks, [&](int64_t task, WorkerScratch& scratch) {
    const int64_t first_group = task * step;
    const int64_t group_count = std::min(step, matrix.groups() - first_group);
    const int64_t acc_stride = group_count * kLanes;
    float* acc = scratch.acc.get(token_count * acc_stride);  // [tokens, rows of the task]
    if (int8 != nullptr) {
      multiply_groups_int8(workers.kernels(), *int8, scratch, matrix, first_group, group_count, rows_int8.set(0), acc,
                           acc_stride);
    } else {
      multiply_groups(workers.kernels(), scratch, matrix, first_group, group_count, x, token_count, acc, acc_stride);
    }
    const int64_t rows = std::min(acc_stride, matrix.rows - first_group * kLanes);
    for (int64_t t = 0; t < token_count; ++t) {
      std::memcpy(y + t * y_stride + first_group * kLanes, acc + t * acc_stride,
                  static_cast<size_t>(rows) * sizeof(float));
    }
  });
}

}  // namespace

void matmul(Workers& workers, const quant::PackedView& matrix, const RowView& x, int64_t token_count, float* y,
            int64_t y_stride) {
  for (int64_t t = 0; t < token_count; t += kDenseTokens) {
    multiply_tokens(workers, matrix, x.from(t), std::min(kDenseTokens, token_count - t), y + t * y_stride, y_stride);
  }
}

}  // namespace moraine::cpu

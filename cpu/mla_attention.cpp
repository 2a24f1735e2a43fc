#include "cpu/mla_attention.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/flash_block.h"
#include "cpu/matmul.h"
#include "cpu/mla_attention_bf16.h"
#include "quant/error.h"

namespace moraine::cpu {
namespace {

constexpr int64_t kPage = LatentCache::kPageTokens;
/// Rows × heads of one absorbed task: their queries, scores and sums stay in L2, and a page is transposed once for all.
constexpr int64_t kAbsorbedRows = 128;
/// Rows of one expanded task: as many as a step usually has, because every task expands the whole context once. In
/// bf16 a row's query and sums are smaller and expanding is a larger part.
constexpr int64_t kExpandedRows = 512;
constexpr int64_t kExpandedBf16Rows = 2048;

/// Both forms of one task over an f32 cache.
class Task {
 public:
  Task(const Workers& workers, WorkerScratch& scratch, const MlaInputs& inputs, const MlaTask& task)
      : kernels_(workers.kernels()), scratch_(scratch), in_(inputs), shape_(inputs.shape), task_(task) {}

  void run_absorbed();
  void run_expanded();

 private:
  int64_t visible_tokens() const { return task_.first_position + task_.row_count; }

  FlashRows make_rows(int64_t key_width, int64_t value_width);
  void absorb_query(int64_t head, float* queries);
  void unabsorb_output(const FlashRows& rows, int64_t head);

  const KernelTable& kernels_;
  WorkerScratch& scratch_;
  const MlaInputs& in_;
  const MlaShape& shape_;
  const MlaTask& task_;
};

/// Rows ordered by token, then head, so that positions do not fall.
FlashRows Task::make_rows(int64_t key_width, int64_t value_width) {
  const int64_t count = task_.row_count * task_.head_count;
  scratch_.softmax.assign(static_cast<size_t>(count), SoftmaxState{});
  scratch_.positions.resize(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    scratch_.positions[static_cast<size_t>(i)] = task_.first_position + i / task_.head_count;
  }
  FlashRows rows{.count = count,
                 .key_width = key_width,
                 .value_width = value_width,
                 .scale = shape_.softmax_scale,
                 .queries = scratch_.queries.get(count * key_width),
                 .positions = scratch_.positions.data(),
                 .scores = scratch_.scores.get(count * kPage),
                 .score_stride = kPage,
                 .softmax = scratch_.softmax.data(),
                 .mixed = scratch_.mixed.get(count * value_width)};
  std::fill_n(rows.mixed, count * value_width, 0.0f);
  return rows;
}

/// queries[t, head] = q_nope[t, head] · W_UK[head] | q_pe: the product with the transposed rows of kv_b_proj.
void Task::absorb_query(int64_t head, float* queries) {
  constexpr int64_t kColumns = 256;
  const GroupRange range = covering_groups(head * shape_.kv_head_rows(), shape_.qk_nope_head_dim);
  const int64_t padded = range.group_count * kLanes;
  const int64_t width = shape_.kv_lora_rank + shape_.qk_rope_head_dim;
  float* q_nope = scratch_.x_tile.get(task_.row_count * padded);  // [rows, padded], other rows' lanes zero
  std::fill_n(q_nope, task_.row_count * padded, 0.0f);
  for (int64_t t = 0; t < task_.row_count; ++t) {
    std::copy_n(in_.query(task_, t, head), shape_.qk_nope_head_dim, q_nope + t * padded + range.skipped_lanes);
  }
  float* first = queries + (head - task_.first_head) * width;
  const int64_t token_stride = task_.head_count * width;
  for (int64_t col = 0; col < shape_.kv_lora_rank; col += kColumns) {
    const int64_t col_count = std::min(kColumns, shape_.kv_lora_rank - col);
    const Panel panel =
        decode_panel(kernels_, scratch_, in_.kv_b_proj, range.first_group, range.group_count, col, col_count);
    kernels_.combine_rows(panel, q_nope, padded, task_.row_count, col_count, first + col, token_stride);
  }
  for (int64_t t = 0; t < task_.row_count; ++t) {
    std::copy_n(in_.query(task_, t, head) + shape_.qk_nope_head_dim, shape_.qk_rope_head_dim,
                first + t * token_stride + shape_.kv_lora_rank);
  }
}

/// out[t, head] = W_UV[head] · mixed[t, head].
void Task::unabsorb_output(const FlashRows& rows, int64_t head) {
  const GroupRange range = covering_groups(head * shape_.kv_head_rows() + shape_.qk_nope_head_dim, shape_.v_head_dim);
  const int64_t padded = range.group_count * kLanes;
  float* acc = scratch_.acc.get(task_.row_count * padded);  // [rows, padded]
  const RowView latents{.data = rows.mixed + (head - task_.first_head) * rows.value_width,
                        .stride = task_.head_count * rows.value_width};
  multiply_groups(kernels_, scratch_, in_.kv_b_proj, range.first_group, range.group_count, latents, task_.row_count,
                  acc, padded);
  for (int64_t t = 0; t < task_.row_count; ++t) {
    std::copy_n(acc + t * padded + range.skipped_lanes, shape_.v_head_dim, in_.output(task_, t, head));
  }
}

void Task::run_absorbed() {
  const LatentCache& cache = *task_.slice->cache;
  const int64_t key_width = cache.width();
  const FlashRows rows = make_rows(key_width, padded_to_lanes(shape_.kv_lora_rank));
  float* queries = scratch_.queries.get(rows.count * key_width);
  for (int64_t head = task_.first_head; head < task_.first_head + task_.head_count; ++head) {
    absorb_query(head, queries);
  }
  float* keys = scratch_.keys.get(kPage * key_width);  // [page/16, width, 16]
  for (int64_t first = 0; first < visible_tokens(); first += kPage) {
    const float* page = cache.f32_page(in_.layer, first / kPage);  // [tokens, stride]
    const int64_t token_count = std::min(kPage, visible_tokens() - first);
    transpose_keys(page, cache.stride(), token_count, key_width, keys, key_width);
    flash_block(kernels_, rows,
                {.first_position = first,
                 .token_count = token_count,
                 .keys = keys,
                 .values = page,
                 .value_stride = cache.stride()});
  }
  flash_finish(rows);
  for (int64_t head = task_.first_head; head < task_.first_head + task_.head_count; ++head) {
    unabsorb_output(rows, head);
  }
}

void Task::run_expanded() {
  MORAINE_CHECK(task_.head_count == 1);
  const LatentCache& cache = *task_.slice->cache;
  const int64_t head = task_.first_head, key_width = shape_.qk_head_dim(), nope = shape_.qk_nope_head_dim;
  const FlashRows rows = make_rows(key_width, padded_to_lanes(shape_.v_head_dim));
  float* queries = scratch_.queries.get(rows.count * key_width);
  for (int64_t t = 0; t < task_.row_count; ++t)
    std::copy_n(in_.query(task_, t, head), key_width, queries + t * key_width);

  const GroupRange range = covering_groups(head * shape_.kv_head_rows(), shape_.kv_head_rows());
  const int64_t padded = range.group_count * kLanes;
  float* expanded = scratch_.acc.get(kPage * padded + kLanes);  // [page, k_nope | v]; values are read 16 at a time
  float* keys = scratch_.keys.get(kPage * key_width);           // [page/16, nope | rope, 16]
  for (int64_t first = 0; first < visible_tokens(); first += kPage) {
    const float* page = cache.f32_page(in_.layer, first / kPage);
    const int64_t token_count = std::min(kPage, visible_tokens() - first);
    multiply_groups(kernels_, scratch_, in_.kv_b_proj, range.first_group, range.group_count,
                    {.data = page, .stride = cache.stride()}, token_count, expanded, padded);
    const float* k_nope = expanded + range.skipped_lanes;
    transpose_keys(k_nope, padded, token_count, nope, keys, key_width);
    transpose_keys(page + shape_.kv_lora_rank, cache.stride(), token_count, shape_.qk_rope_head_dim,
                   keys + nope * kLanes, key_width);
    flash_block(kernels_, rows,
                {.first_position = first,
                 .token_count = token_count,
                 .keys = keys,
                 .values = k_nope + nope,
                 .value_stride = padded});
  }
  flash_finish(rows);
  for (int64_t t = 0; t < task_.row_count; ++t) {
    std::copy_n(rows.mixed + t * rows.value_width, shape_.v_head_dim, in_.output(task_, t, head));
  }
}

void add_tasks(const MlaShape& shape, const MlaSlice& slice, int threads, std::vector<MlaTask>& tasks) {
  const bool bf16 = slice.cache->type() == CacheType::kBf16;
  int64_t heads = 1, rows = bf16 ? kExpandedBf16Rows : kExpandedRows;
  if (slice.form == MlaForm::kAbsorbed) {
    rows = std::min<int64_t>(slice.row_count, 16);
    // The lanes of the bf16 kernels are rows × heads.
    const int64_t fewest = bf16 ? (kLanes + rows - 1) / rows : 1;
    heads = std::clamp<int64_t>((shape.num_attention_heads + threads - 1) / threads, fewest, kAbsorbedRows / rows);
  }
  for (int64_t row = 0; row < slice.row_count; row += rows) {
    for (int64_t head = 0; head < shape.num_attention_heads; head += heads) {
      tasks.push_back({.slice = &slice,
                       .first_row = slice.first_row + row,
                       .row_count = std::min(rows, slice.row_count - row),
                       .first_position = slice.first_position + row,
                       .first_head = head,
                       .head_count = std::min(heads, shape.num_attention_heads - head)});
    }
  }
}

}  // namespace

GroupRange covering_groups(int64_t first_row, int64_t row_count) {
  const int64_t first = first_row / kLanes;
  return {first, (first_row + row_count + kLanes - 1) / kLanes - first, first_row % kLanes};
}

CacheType latent_type(std::span<const quant::DType> kv_b_proj_types, bool precise) {
  const bool rounded =
      !precise && !kv_b_proj_types.empty() && std::ranges::all_of(kv_b_proj_types, [](quant::DType type) {
        return absorb_kernel(scalar_kernels(), type) != nullptr;
      });
  return rounded ? CacheType::kBf16 : CacheType::kF32;
}

MlaForm cheaper_form(const MlaShape& shape, int64_t row_count, CacheType type) {
  const int64_t handicap = type == CacheType::kBf16 ? 2 : 1;
  const int64_t absorbed = handicap * row_count * (2 * shape.kv_lora_rank + shape.qk_rope_head_dim);
  const int64_t expanded =
      row_count * (shape.qk_head_dim() + shape.v_head_dim) + shape.kv_lora_rank * shape.kv_head_rows();
  return absorbed <= expanded ? MlaForm::kAbsorbed : MlaForm::kExpanded;
}

void mla_attention(Workers& workers, const MlaShape& shape, const quant::PackedView& kv_b_proj, int64_t layer,
                   std::span<const MlaSlice> slices, const float* q, float* out) {
  MORAINE_CHECK(kv_b_proj.rows == shape.num_attention_heads * shape.kv_head_rows() &&
                kv_b_proj.cols == shape.kv_lora_rank);
  std::vector<MlaTask> tasks;
  for (const MlaSlice& slice : slices) {
    MORAINE_CHECK(slice.cache->width() == shape.kv_lora_rank + shape.qk_rope_head_dim);
    add_tasks(shape, slice, workers.threads(), tasks);
  }
  const MlaInputs inputs{.shape = shape, .kv_b_proj = kv_b_proj, .layer = layer, .q = q, .out = out};
  workers.parallel_for(std::ssize(tasks), [&](int64_t i, WorkerScratch& scratch) {
    const MlaTask& task = tasks[static_cast<size_t>(i)];
    if (task.slice->cache->type() == CacheType::kBf16) {
      mla_task_bf16(workers, scratch, inputs, task);
      return;
    }
    Task work(workers, scratch, inputs, task);
    if (task.slice->form == MlaForm::kAbsorbed) {
      work.run_absorbed();
    } else {
      work.run_expanded();
    }
  });
}

}  // namespace moraine::cpu

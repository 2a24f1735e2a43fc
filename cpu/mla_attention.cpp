#include "cpu/mla_attention.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/flash_block.h"
#include "cpu/matmul.h"
#include "quant/error.h"

namespace moraine::cpu {
namespace {

constexpr int64_t kPage = LatentCache::kPageTokens;
/// Rows × heads of one absorbed task: their queries, scores and sums stay in L2, and a page is transposed once for all.
constexpr int64_t kAbsorbedRows = 128;
/// Rows of one expanded task: as many as a step usually has, because every task expands the whole context once.
constexpr int64_t kExpandedRows = 512;

constexpr int64_t round_up(int64_t n) {
  return (n + kLanes - 1) / kLanes * kLanes;
}

/// Some heads of some rows of a slice.
struct Task {
  const MlaSlice* slice = nullptr;
  int64_t first_row = 0;  // of the batch
  int64_t row_count = 0;
  int64_t first_position = 0;
  int64_t first_head = 0;
  int64_t head_count = 0;
};

/// Row groups of a packed matrix that cover rows [first_row, first_row + row_count).
struct GroupRange {
  int64_t first_group = 0;
  int64_t group_count = 0;
  int64_t skipped_lanes = 0;  // rows of first_group before first_row
};

GroupRange covering_groups(int64_t first_row, int64_t row_count) {
  const int64_t first = first_row / kLanes;
  return {first, (first_row + row_count + kLanes - 1) / kLanes - first, first_row % kLanes};
}

class MlaTask {
 public:
  MlaTask(const Workers& workers, WorkerScratch& scratch, const MlaShape& shape, const quant::PackedView& kv_b_proj,
          int64_t layer, const Task& task)
      : kernels_(workers.kernels()),
        scratch_(scratch),
        shape_(shape),
        kv_b_proj_(kv_b_proj),
        layer_(layer),
        task_(task) {}

  void run_absorbed(const float* q, float* out);
  void run_expanded(const float* q, float* out);

 private:
  const float* query(const float* q, int64_t t, int64_t head) const {
    return q + ((task_.first_row + t) * shape_.num_attention_heads + head) * shape_.qk_head_dim();
  }
  float* output(float* out, int64_t t, int64_t head) const {
    return out + ((task_.first_row + t) * shape_.num_attention_heads + head) * shape_.v_head_dim;
  }
  int64_t visible_tokens() const { return task_.first_position + task_.row_count; }

  FlashRows make_rows(int64_t key_width, int64_t value_width);
  void absorb_query(const float* q, int64_t head, float* queries);
  void unabsorb_output(const FlashRows& rows, int64_t head, float* out);

  const KernelTable& kernels_;
  WorkerScratch& scratch_;
  const MlaShape& shape_;
  const quant::PackedView& kv_b_proj_;
  int64_t layer_;
  const Task& task_;
};

/// Rows ordered by token, then head, so that positions do not fall.
FlashRows MlaTask::make_rows(int64_t key_width, int64_t value_width) {
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
void MlaTask::absorb_query(const float* q, int64_t head, float* queries) {
  constexpr int64_t kColumns = 256;
  const GroupRange range = covering_groups(head * shape_.kv_head_rows(), shape_.qk_nope_head_dim);
  const int64_t padded = range.group_count * kLanes;
  const int64_t width = shape_.kv_lora_rank + shape_.qk_rope_head_dim;
  float* q_nope = scratch_.x_tile.get(task_.row_count * padded);  // [rows, padded], other rows' lanes zero
  std::fill_n(q_nope, task_.row_count * padded, 0.0f);
  for (int64_t t = 0; t < task_.row_count; ++t) {
    std::copy_n(query(q, t, head), shape_.qk_nope_head_dim, q_nope + t * padded + range.skipped_lanes);
  }
  float* first = queries + (head - task_.first_head) * width;
  const int64_t token_stride = task_.head_count * width;
  for (int64_t col = 0; col < shape_.kv_lora_rank; col += kColumns) {
    const int64_t col_count = std::min(kColumns, shape_.kv_lora_rank - col);
    const Panel panel =
        decode_panel(kernels_, scratch_, kv_b_proj_, range.first_group, range.group_count, col, col_count);
    kernels_.combine_rows(panel, q_nope, padded, task_.row_count, col_count, first + col, token_stride);
  }
  for (int64_t t = 0; t < task_.row_count; ++t) {
    std::copy_n(query(q, t, head) + shape_.qk_nope_head_dim, shape_.qk_rope_head_dim,
                first + t * token_stride + shape_.kv_lora_rank);
  }
}

/// out[t, head] = W_UV[head] · mixed[t, head].
void MlaTask::unabsorb_output(const FlashRows& rows, int64_t head, float* out) {
  const GroupRange range = covering_groups(head * shape_.kv_head_rows() + shape_.qk_nope_head_dim, shape_.v_head_dim);
  const int64_t padded = range.group_count * kLanes;
  float* acc = scratch_.acc.get(task_.row_count * padded);  // [rows, padded]
  const RowView latents{.data = rows.mixed + (head - task_.first_head) * rows.value_width,
                        .stride = task_.head_count * rows.value_width};
  multiply_groups(kernels_, scratch_, kv_b_proj_, range.first_group, range.group_count, latents, task_.row_count, acc,
                  padded);
  for (int64_t t = 0; t < task_.row_count; ++t) {
    std::copy_n(acc + t * padded + range.skipped_lanes, shape_.v_head_dim, output(out, t, head));
  }
}

void MlaTask::run_absorbed(const float* q, float* out) {
  const LatentCache& cache = *task_.slice->cache;
  const int64_t key_width = cache.width();
  const FlashRows rows = make_rows(key_width, round_up(shape_.kv_lora_rank));
  float* queries = scratch_.queries.get(rows.count * key_width);
  for (int64_t head = task_.first_head; head < task_.first_head + task_.head_count; ++head) {
    absorb_query(q, head, queries);
  }
  float* keys = scratch_.keys.get(kPage * key_width);  // [page/16, width, 16]
  for (int64_t first = 0; first < visible_tokens(); first += kPage) {
    const float* page = cache.page(layer_, first / kPage);  // [tokens, stride]
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
    unabsorb_output(rows, head, out);
  }
}

void MlaTask::run_expanded(const float* q, float* out) {
  MORAINE_CHECK(task_.head_count == 1);
  const LatentCache& cache = *task_.slice->cache;
  const int64_t head = task_.first_head, key_width = shape_.qk_head_dim(), nope = shape_.qk_nope_head_dim;
  const FlashRows rows = make_rows(key_width, round_up(shape_.v_head_dim));
  float* queries = scratch_.queries.get(rows.count * key_width);
  for (int64_t t = 0; t < task_.row_count; ++t) std::copy_n(query(q, t, head), key_width, queries + t * key_width);

  const GroupRange range = covering_groups(head * shape_.kv_head_rows(), shape_.kv_head_rows());
  const int64_t padded = range.group_count * kLanes;
  float* expanded = scratch_.acc.get(kPage * padded + kLanes);  // [page, k_nope | v]; values are read 16 at a time
  float* keys = scratch_.keys.get(kPage * key_width);           // [page/16, nope | rope, 16]
  for (int64_t first = 0; first < visible_tokens(); first += kPage) {
    const float* page = cache.page(layer_, first / kPage);
    const int64_t token_count = std::min(kPage, visible_tokens() - first);
    multiply_groups(kernels_, scratch_, kv_b_proj_, range.first_group, range.group_count,
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
    std::copy_n(rows.mixed + t * rows.value_width, shape_.v_head_dim, output(out, t, head));
  }
}

void add_tasks(const MlaShape& shape, const MlaSlice& slice, int threads, std::vector<Task>& tasks) {
  int64_t heads = 1, rows = kExpandedRows;
  if (slice.form == MlaForm::kAbsorbed) {
    rows = std::min<int64_t>(slice.row_count, 16);
    heads = std::clamp<int64_t>((shape.num_attention_heads + threads - 1) / threads, 1, kAbsorbedRows / rows);
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

MlaForm cheaper_form(const MlaShape& shape, int64_t row_count) {
  const int64_t absorbed = row_count * (2 * shape.kv_lora_rank + shape.qk_rope_head_dim);
  const int64_t expanded =
      row_count * (shape.qk_head_dim() + shape.v_head_dim) + shape.kv_lora_rank * shape.kv_head_rows();
  return absorbed <= expanded ? MlaForm::kAbsorbed : MlaForm::kExpanded;
}

void mla_attention(Workers& workers, const MlaShape& shape, const quant::PackedView& kv_b_proj, int64_t layer,
                   std::span<const MlaSlice> slices, const float* q, float* out) {
  MORAINE_CHECK(kv_b_proj.rows == shape.num_attention_heads * shape.kv_head_rows() &&
                kv_b_proj.cols == shape.kv_lora_rank);
  std::vector<Task> tasks;
  for (const MlaSlice& slice : slices) {
    MORAINE_CHECK(slice.cache->width() == shape.kv_lora_rank + shape.qk_rope_head_dim);
    add_tasks(shape, slice, workers.threads(), tasks);
  }
  workers.parallel_for(std::ssize(tasks), [&](int64_t i, WorkerScratch& scratch) {
    const Task& task = tasks[static_cast<size_t>(i)];
    MlaTask work(workers, scratch, shape, kv_b_proj, layer, task);
    if (task.slice->form == MlaForm::kAbsorbed) {
      work.run_absorbed(q, out);
    } else {
      work.run_expanded(q, out);
    }
  });
}

}  // namespace moraine::cpu

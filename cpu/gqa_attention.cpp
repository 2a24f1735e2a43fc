#include "cpu/gqa_attention.h"

#include <algorithm>
#include <vector>

#include "cpu/flash_block.h"
#include "quant/error.h"

namespace moraine::cpu {
namespace {

constexpr int64_t kPage = HeadCache::kPageTokens;
/// Rows × heads of one task: their queries, scores and sums stay in L2 while the cache streams by.
constexpr int64_t kTaskRows = 512;

/// The query heads of one kv head for some rows of a slice.
struct Task {
  const GqaSlice* slice = nullptr;
  int64_t first_row = 0;  // of the batch
  int64_t row_count = 0;
  int64_t first_position = 0;
  int64_t kv_head = 0;
};

/// Rows ordered by token, then head, so that positions do not fall.
FlashRows make_rows(WorkerScratch& scratch, const GqaShape& shape, const Task& task, int64_t value_width,
                    const float* q) {
  const int64_t group = shape.group(), head_dim = shape.head_dim;
  const int64_t count = task.row_count * group;
  scratch.softmax.assign(static_cast<size_t>(count), SoftmaxState{});
  scratch.positions.resize(static_cast<size_t>(count));
  float* queries = scratch.queries.get(count * head_dim);  // [rows, group, head_dim]
  for (int64_t t = 0; t < task.row_count; ++t) {
    std::fill_n(scratch.positions.begin() + t * group, group, task.first_position + t);
    const float* from = q + ((task.first_row + t) * shape.num_attention_heads + task.kv_head * group) * head_dim;
    std::copy_n(from, group * head_dim, queries + t * group * head_dim);
  }
  FlashRows rows{.count = count,
                 .key_width = head_dim,
                 .value_width = value_width,
                 .scale = shape.softmax_scale,
                 .queries = queries,
                 .positions = scratch.positions.data(),
                 .scores = scratch.scores.get(count * kPage),
                 .score_stride = kPage,
                 .softmax = scratch.softmax.data(),
                 .mixed = scratch.mixed.get(count * value_width)};
  std::fill_n(rows.mixed, count * value_width, 0.0f);
  return rows;
}

void run_task(const KernelTable& kernels, WorkerScratch& scratch, const GqaShape& shape, int64_t layer,
              const Task& task, const float* q, float* out) {
  const HeadCache& cache = *task.slice->cache;
  const FlashRows rows = make_rows(scratch, shape, task, cache.value_stride(), q);
  const int64_t visible_tokens = task.first_position + task.row_count;
  for (int64_t first = 0; first < visible_tokens; first += kPage) {
    flash_block(kernels, rows,
                {.first_position = first,
                 .token_count = std::min(kPage, visible_tokens - first),
                 .keys = cache.keys(layer, task.kv_head, first / kPage),
                 .values = cache.values(layer, task.kv_head, first / kPage),
                 .value_stride = cache.value_stride()});
  }
  flash_finish(rows);
  const int64_t group = shape.group();
  for (int64_t i = 0; i < rows.count; ++i) {
    const int64_t row = task.first_row + i / group, head = task.kv_head * group + i % group;
    std::copy_n(rows.mixed + i * rows.value_width, shape.head_dim,
                out + (row * shape.num_attention_heads + head) * shape.head_dim);
  }
}

}  // namespace

void gqa_attention(Workers& workers, const GqaShape& shape, int64_t layer, std::span<const GqaSlice> slices,
                   const float* q, float* out) {
  MORAINE_CHECK(shape.num_attention_heads % shape.num_key_value_heads == 0);
  const int64_t task_rows = std::max<int64_t>(1, kTaskRows / shape.group());
  std::vector<Task> tasks;
  for (const GqaSlice& slice : slices) {
    MORAINE_CHECK(slice.cache->kv_heads() == shape.num_key_value_heads && slice.cache->head_dim() == shape.head_dim);
    for (int64_t row = 0; row < slice.row_count; row += task_rows) {
      for (int64_t head = 0; head < shape.num_key_value_heads; ++head) {
        tasks.push_back({.slice = &slice,
                         .first_row = slice.first_row + row,
                         .row_count = std::min(task_rows, slice.row_count - row),
                         .first_position = slice.first_position + row,
                         .kv_head = head});
      }
    }
  }
  workers.parallel_for(std::ssize(tasks), [&](int64_t i, WorkerScratch& scratch) {
    run_task(workers.kernels(), scratch, shape, layer, tasks[static_cast<size_t>(i)], q, out);
  });
}

}  // namespace moraine::cpu

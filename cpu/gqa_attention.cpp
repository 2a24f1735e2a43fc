#include "cpu/gqa_attention.h"

#include <algorithm>
#include <vector>

#include "cpu/gqa_span.h"
#include "quant/error.h"

namespace moraine::cpu {
namespace {

/// Rows × heads of one task: their queries, scores and sums stay in L2 while the cache streams by.
constexpr int64_t kTaskRows = 512;
/// Up to so many rows × heads, spans are tasks of their own: there would be too few tasks, and what they give is small.
constexpr int64_t kSplitRows = 64;

/// The query heads of one kv head for some rows of a slice, over some spans of the context.
struct Task {
  const GqaSlice* slice = nullptr;
  int64_t first_row = 0;  // of the batch
  int64_t row_count = 0;
  int64_t first_position = 0;
  int64_t kv_head = 0;
  int64_t first_span = 0;
  int64_t span_count = 0;
  int64_t partial = -1;  // floats before its place in `partials`; −1: it has all spans

  int64_t visible_tokens() const { return first_position + row_count; }
};

/// What a row has gathered over the spans so far: mixed = Σ exp(score − max) · value.
struct Total {
  SoftmaxState softmax;
  float* mixed = nullptr;  // [width]
};

/// Takes a later span of the row in. A first one is taken as it is: exp(−∞) is zero, exp(0) one.
void merge(const KernelTable& kernels, Total& total, const SoftmaxState& span, const float* mixed, int64_t width) {
  if (span.sum == 0.0f) return;  // the row sees none of its tokens
  float factor = span.max;       // becomes exp(span.max − max)
  SoftmaxState larger{total.softmax.max, 0.0f};
  const float rescale = kernels.softmax_step(&factor, 1, 1.0f, larger);
  total.softmax = {larger.max, total.softmax.sum * rescale + span.sum * factor};
  for (int64_t c = 0; c < width; ++c) total.mixed[c] = total.mixed[c] * rescale + mixed[c] * factor;
}

/// All tasks of a call.
class Attention {
 public:
  Attention(Workers& workers, const GqaShape& shape, int64_t layer, const float* q, float* out)
      : workers_(workers), shape_(shape), layer_(layer), q_(q), out_(out) {}

  void add(const GqaSlice& slice);
  void run(FloatBuffer& partials);

 private:
  void add_spans(Task task);
  int64_t partial_width() const { return padded_to_lanes(shape_.head_dim) + 2; }
  template <typename Rows>
  void run_task(const Task& task, WorkerScratch& scratch);
  void merge_partials(const Task& first, WorkerScratch& scratch);
  void write_row(const Task& task, int64_t i, const Total& total);

  Workers& workers_;
  const GqaShape& shape_;
  int64_t layer_;
  const float* q_;
  float* out_;
  std::vector<Task> tasks_;
  std::vector<Task> split_;     // the tasks of one span each that are the first of their rows
  int64_t partial_floats_ = 0;  // of all tasks of one span
  float* partials_ = nullptr;   // per task [rows, max | sum | mixed]
};

void Attention::add(const GqaSlice& slice) {
  MORAINE_CHECK(slice.cache->kv_heads() == shape_.num_key_value_heads && slice.cache->head_dim() == shape_.head_dim);
  const int64_t task_rows = std::max<int64_t>(1, kTaskRows / shape_.group());
  for (int64_t row = 0; row < slice.row_count; row += task_rows) {
    for (int64_t head = 0; head < shape_.num_key_value_heads; ++head) {
      add_spans({.slice = &slice,
                 .first_row = slice.first_row + row,
                 .row_count = std::min(task_rows, slice.row_count - row),
                 .first_position = slice.first_position + row,
                 .kv_head = head});
    }
  }
}

void Attention::add_spans(Task task) {
  task.span_count = (task.visible_tokens() + kGqaSpanTokens - 1) / kGqaSpanTokens;
  const int64_t rows = task.row_count * shape_.group();
  if (rows > kSplitRows || task.span_count == 1) {
    tasks_.push_back(task);
    return;
  }
  task.partial = partial_floats_;
  split_.push_back(task);
  const int64_t span_count = task.span_count;
  task.span_count = 1;
  for (int64_t span = 0; span < span_count; ++span) {
    task.first_span = span;
    task.partial = partial_floats_;
    tasks_.push_back(task);
    partial_floats_ += rows * partial_width();
  }
}

template <typename Rows>
void Attention::run_task(const Task& task, WorkerScratch& scratch) {
  const int64_t heads = shape_.num_attention_heads, dim = shape_.head_dim, group = shape_.group();
  const GqaQueries queries{.row_count = task.row_count,
                           .group = group,
                           .first_position = task.first_position,
                           .scale = shape_.softmax_scale,
                           .q = q_ + (task.first_row * heads + task.kv_head * group) * dim,
                           .row_stride = heads * dim};
  Rows rows(workers_.kernels(), scratch, *task.slice->cache, queries);
  const int64_t width = task.slice->cache->value_stride();
  std::vector<Total> totals(task.partial < 0 ? static_cast<size_t>(queries.count()) : 0);
  float* mixed = scratch.acc.get(std::ssize(totals) * width);  // [rows, width]
  std::fill_n(mixed, std::ssize(totals) * width, 0.0f);
  for (size_t i = 0; i < totals.size(); ++i) totals[i].mixed = mixed + static_cast<int64_t>(i) * width;
  for (int64_t span = task.first_span; span < task.first_span + task.span_count; ++span) {
    const int64_t first = span * kGqaSpanTokens;
    rows.run(layer_, task.kv_head, first, std::min(first + kGqaSpanTokens, task.visible_tokens()));
    for (int64_t i = 0; i < queries.count(); ++i) {
      const SoftmaxState softmax = queries.position(i) < first ? SoftmaxState{} : rows.softmax(i);
      if (task.partial < 0) {
        merge(workers_.kernels(), totals[static_cast<size_t>(i)], softmax, rows.mixed(i), width);
        continue;
      }
      float* partial = partials_ + task.partial + i * partial_width();
      partial[0] = softmax.max;
      partial[1] = softmax.sum;
      std::copy_n(rows.mixed(i), width, partial + 2);
    }
  }
  for (size_t i = 0; i < totals.size(); ++i) write_row(task, static_cast<int64_t>(i), totals[i]);
}

/// What run_task() does at once, from what the spans' tasks have left. `first` has the place of the first of them.
void Attention::merge_partials(const Task& first, WorkerScratch& scratch) {
  const int64_t rows = first.row_count * shape_.group(), width = first.slice->cache->value_stride();
  for (int64_t i = 0; i < rows; ++i) {
    Total total{.softmax = {}, .mixed = scratch.acc.get(width)};
    std::fill_n(total.mixed, width, 0.0f);
    for (int64_t span = 0; span < first.span_count; ++span) {
      const float* partial = partials_ + first.partial + (span * rows + i) * partial_width();
      merge(workers_.kernels(), total, {partial[0], partial[1]}, partial + 2, width);
    }
    write_row(first, i, total);
  }
}

void Attention::write_row(const Task& task, int64_t i, const Total& total) {
  const int64_t group = shape_.group();
  const int64_t row = task.first_row + i / group, head = task.kv_head * group + i % group;
  float* out = out_ + (row * shape_.num_attention_heads + head) * shape_.head_dim;
  const float inverse = 1.0f / total.softmax.sum;
  for (int64_t c = 0; c < shape_.head_dim; ++c) out[c] = total.mixed[c] * inverse;
}

void Attention::run(FloatBuffer& partials) {
  partials_ = partials.get(partial_floats_);
  workers_.parallel_for(std::ssize(tasks_), [&](int64_t i, WorkerScratch& scratch) {
    const Task& task = tasks_[static_cast<size_t>(i)];
    if (task.slice->cache->type() == CacheType::kBf16) {
      run_task<GqaBf16Rows>(task, scratch);
    } else {
      run_task<GqaF32Rows>(task, scratch);
    }
  });
  workers_.parallel_for(std::ssize(split_), [&](int64_t i, WorkerScratch& scratch) {
    merge_partials(split_[static_cast<size_t>(i)], scratch);
  });
}

}  // namespace

CacheType head_cache_type(std::span<const quant::DType> projection_types, bool precise) {
  const bool rounded =
      !precise && !projection_types.empty() &&
      std::ranges::all_of(projection_types, [](quant::DType type) { return quant::block_elements(type) > 1; });
  return rounded ? CacheType::kBf16 : CacheType::kF32;
}

void gqa_attention(Workers& workers, const GqaShape& shape, int64_t layer, std::span<const GqaSlice> slices,
                   FloatBuffer& partials, const float* q, float* out) {
  MORAINE_CHECK(shape.num_attention_heads % shape.num_key_value_heads == 0);
  Attention attention(workers, shape, layer, q, out);
  for (const GqaSlice& slice : slices) attention.add(slice);
  attention.run(partials);
}

}  // namespace moraine::cpu

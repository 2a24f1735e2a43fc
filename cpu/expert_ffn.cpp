#include "cpu/expert_ffn.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "cpu/quantized_rows.h"
#include "quant/error.h"

namespace moraine::cpu {
namespace {

/// A job with its int8 activations; each of them null where f32 is used.
struct Work {
  FfnJob job;
  const Int8Rows* x = nullptr;      // [tokens, hidden]
  const Int8Rows* inner = nullptr;  // [tokens, intermediate]
};

/// Some row groups of a job's matrix.
struct Task {
  const Work* work = nullptr;
  int64_t first_group = 0;
  int64_t group_count = 0;

  /// Where its groups of a matrix of the job begin.
  const std::byte* begin_of(const quant::PackedView& matrix) const { return packed_group(matrix, first_group).data; }
};

/// The groups of `matrix(job)` of all jobs, divided evenly into tasks.
template <class MatrixOf>
std::vector<Task> divide(const Workers& workers, std::span<const Work> works, MatrixOf matrix) {
  int64_t total = 0;
  for (const Work& work : works) total += matrix(work.job).groups();
  std::vector<Task> tasks;
  for (const Work& work : works) {
    const int64_t groups = matrix(work.job).groups();
    const int64_t step = groups_per_task(workers, total, work.job.token_count);
    for (int64_t g = 0; g < groups; g += step) tasks.push_back({&work, g, std::min(step, groups - g)});
  }
  return tasks;
}

/// acc := the task's rows of a matrix. `x` is what `x_int8` is made of, if it is not null; `next` is what the thread
/// reads next.
void multiply(const Workers& workers, WorkerScratch& scratch, const Task& task, const quant::PackedView& matrix,
              const RowView& x, const Int8Rows* x_int8, const std::byte* next, float* acc, int64_t stride) {
  const Int8Format* int8 = int8_format(workers, matrix);
  if (int8 != nullptr) {
    multiply_groups_int8(workers.kernels(), *int8, scratch, matrix, task.first_group, task.group_count, *x_int8, acc,
                         stride, next);
  } else {
    multiply_groups(workers.kernels(), scratch, matrix, task.first_group, task.group_count, x,
                    task.work->job.token_count, acc, stride);
  }
}

/// inner[t] = silu(gate(x[t])) ⊙ up(x[t]) for the task's rows of gate and up. `next`: the task behind it, if any.
void gate_and_up(const Workers& workers, WorkerScratch& scratch, const Task& task, const Task* next) {
  const FfnJob& job = task.work->job;
  const int64_t stride = task.group_count * kLanes;
  float* gate = scratch.acc.get(job.token_count * stride);       // [tokens, rows of the task]
  float* up = scratch.second_acc.get(job.token_count * stride);  // [tokens, rows of the task]
  multiply(workers, scratch, task, job.gate, job.x, task.work->x, task.begin_of(job.up), gate, stride);
  multiply(workers, scratch, task, job.up, job.x, task.work->x,
           next == nullptr ? nullptr : next->begin_of(next->work->job.gate), up, stride);
  const int64_t first = task.first_group * kLanes;
  const int64_t rows = std::min(stride, job.gate.rows - first);
  for (int64_t t = 0; t < job.token_count; ++t) {
    workers.kernels().silu_multiply(gate + t * stride, up + t * stride, rows, job.inner + t * job.gate.rows + first);
  }
}

void down(const Workers& workers, WorkerScratch& scratch, const Task& task, const Task* next) {
  const FfnJob& job = task.work->job;
  const int64_t stride = task.group_count * kLanes;
  float* acc = scratch.acc.get(job.token_count * stride);  // [tokens, rows of the task]
  multiply(workers, scratch, task, job.down, {.data = job.inner, .stride = job.down.cols}, task.work->inner,
           next == nullptr ? nullptr : next->begin_of(next->work->job.down), acc, stride);
  const int64_t first = task.first_group * kLanes;
  const int64_t rows = std::min(stride, job.down.rows - first);
  for (int64_t t = 0; t < job.token_count; ++t) {
    float* out = job.out + (job.out_row == nullptr ? t : job.out_row[t]) * job.out_stride + first;
    const float weight = job.weight == nullptr ? 1.0f : job.weight[t];
    for (int64_t i = 0; i < rows; ++i) out[i] = weight * acc[t * stride + i];
  }
}

/// On all workers. A worker goes through neighbouring tasks in order, so the next one is usually its own.
void run_tasks(Workers& workers, const std::vector<Task>& tasks,
               void (*run)(const Workers&, WorkerScratch&, const Task&, const Task* next)) {
  workers.parallel_for(std::ssize(tasks), [&](int64_t i, WorkerScratch& scratch) {
    const Task* task = tasks.data() + i;
    run(workers, scratch, *task, i + 1 < std::ssize(tasks) ? task + 1 : nullptr);
  });
}

/// Quantizes `rows_of(job)`, of as many columns as `cols_of(job)`, of all jobs for which `wanted(job)` is true, and
/// points `member` of their works to the result.
template <class Wanted, class RowsOf, class ColsOf>
void quantize(Workers& workers, std::vector<Work>& works, FloatBuffer& memory, QuantizedRows& rows,
              const Int8Rows* Work::*member, Wanted wanted, RowsOf rows_of, ColsOf cols_of) {
  std::vector<std::pair<Work*, size_t>> sets;
  for (Work& work : works) {
    if (wanted(work.job))
      sets.emplace_back(&work, rows.add(rows_of(work.job), work.job.token_count, cols_of(work.job)));
  }
  if (sets.empty()) return;
  rows.quantize(workers, memory);
  for (const auto& [work, set] : sets) work->*member = &rows.set(set);
}

}  // namespace

void run_ffn(Workers& workers, std::span<const FfnJob> jobs) {
  for (const FfnJob& job : jobs) {
    MORAINE_CHECK(job.gate.rows == job.up.rows && job.gate.cols == job.up.cols && job.down.cols == job.gate.rows &&
                  job.down.rows == job.gate.cols && job.gate.cols == jobs[0].gate.cols);
  }
  std::vector<Work> works;
  for (const FfnJob& job : jobs) works.push_back({.job = job});
  const auto int8 = [&](const quant::PackedView& matrix) { return int8_format(workers, matrix) != nullptr; };

  QuantizedRows x;
  quantize(
      workers, works, workers.input_activations(), x, &Work::x,
      [&](const FfnJob& job) { return int8(job.gate) || int8(job.up); }, [](const FfnJob& job) { return job.x; },
      [](const FfnJob& job) { return job.gate.cols; });
  const std::vector<Task> first = divide(workers, works, [](const FfnJob& job) { return job.gate; });
  run_tasks(workers, first, gate_and_up);

  QuantizedRows inner;
  quantize(
      workers, works, workers.inner_activations(), inner, &Work::inner,
      [&](const FfnJob& job) { return int8(job.down); },
      [](const FfnJob& job) { return RowView{.data = job.inner, .stride = job.down.cols}; },
      [](const FfnJob& job) { return job.down.cols; });
  const std::vector<Task> second = divide(workers, works, [](const FfnJob& job) { return job.down; });
  run_tasks(workers, second, down);
}

}  // namespace moraine::cpu

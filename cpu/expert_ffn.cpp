#include "cpu/expert_ffn.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/quantized_rows.h"
#include "quant/error.h"

namespace moraine::cpu {
namespace {

/// A job with its int8 activations; each of them null where f32 is used.
struct Work {
  FfnJob job;
  const ActivationBlock* const* x = nullptr;  // [tokens] → [hidden/32]
  ActivationBlock* inner = nullptr;           // [tokens, intermediate/32]
};

/// Some row groups of a job's matrix.
struct Task {
  const Work* work = nullptr;
  int64_t first_group = 0;
  int64_t group_count = 0;
};

/// The groups of `matrix(job)` of all jobs, divided evenly into tasks of a multiple of `unit`.
template <class MatrixOf>
std::vector<Task> divide(std::span<const Work> works, int threads, int64_t unit, MatrixOf matrix) {
  int64_t total = 0;
  for (const Work& work : works) total += matrix(work.job).groups();
  const int64_t step = (groups_per_task(total, threads) + unit - 1) / unit * unit;
  std::vector<Task> tasks;
  for (const Work& work : works) {
    const int64_t groups = matrix(work.job).groups();
    for (int64_t g = 0; g < groups; g += step) tasks.push_back({&work, g, std::min(step, groups - g)});
  }
  return tasks;
}

/// acc := the task's rows of gate or up.
void multiply_input(const Workers& workers, WorkerScratch& scratch, const Task& task, const quant::PackedView& matrix,
                    float* acc, int64_t stride) {
  const FfnJob& job = task.work->job;
  const Int8Kernel int8 = int8_kernel(workers, matrix);
  if (int8 != nullptr) {
    multiply_groups_int8(int8, scratch, matrix, task.first_group, task.group_count, task.work->x, job.token_count, acc,
                         stride);
  } else {
    multiply_groups(workers.kernels(), scratch, matrix, task.first_group, task.group_count, job.x, job.token_count, acc,
                    stride);
  }
}

/// inner[t] = silu(gate(x[t])) ⊙ up(x[t]) for the task's rows of gate and up.
void gate_and_up(const Workers& workers, WorkerScratch& scratch, const Task& task) {
  const FfnJob& job = task.work->job;
  const int64_t stride = task.group_count * kLanes;
  float* gate = scratch.acc.get(job.token_count * stride);       // [tokens, rows of the task]
  float* up = scratch.second_acc.get(job.token_count * stride);  // [tokens, rows of the task]
  multiply_input(workers, scratch, task, job.gate, gate, stride);
  multiply_input(workers, scratch, task, job.up, up, stride);
  const int64_t first = task.first_group * kLanes;
  const int64_t rows = std::min(stride, job.gate.rows - first);
  for (int64_t t = 0; t < job.token_count; ++t) {
    if (task.work->inner == nullptr) {
      workers.kernels().silu_multiply(gate + t * stride, up + t * stride, rows, job.inner + t * job.gate.rows + first);
    } else {
      float* inner = gate + t * stride;
      workers.kernels().silu_multiply(inner, up + t * stride, rows, inner);
      workers.kernels().quantize_activations(
          inner, rows, task.work->inner + t * activation_row_blocks(job.gate.rows) + first / kActivationBlock);
    }
  }
}

void down(const Workers& workers, WorkerScratch& scratch, const Task& task) {
  const FfnJob& job = task.work->job;
  const int64_t stride = task.group_count * kLanes;
  float* acc = scratch.acc.get(job.token_count * stride);  // [tokens, rows of the task]
  if (task.work->inner == nullptr) {
    multiply_groups(workers.kernels(), scratch, job.down, task.first_group, task.group_count,
                    {.data = job.inner, .stride = job.down.cols}, job.token_count, acc, stride);
  } else {
    scratch.blocks.resize(static_cast<size_t>(job.token_count));
    for (int64_t t = 0; t < job.token_count; ++t) {
      scratch.blocks[static_cast<size_t>(t)] = task.work->inner + t * activation_row_blocks(job.down.cols);
    }
    multiply_groups_int8(int8_kernel(workers, job.down), scratch, job.down, task.first_group, task.group_count,
                         scratch.blocks.data(), job.token_count, acc, stride);
  }
  const int64_t first = task.first_group * kLanes;
  const int64_t rows = std::min(stride, job.down.rows - first);
  for (int64_t t = 0; t < job.token_count; ++t) {
    float* out = job.out + (job.out_row == nullptr ? t : job.out_row[t]) * job.out_stride + first;
    const float weight = job.weight == nullptr ? 1.0f : job.weight[t];
    for (int64_t i = 0; i < rows; ++i) out[i] = weight * acc[t * stride + i];
  }
}

/// The jobs with x quantized, into `rows`, and room for inner rows, where their matrices ask for it.
std::vector<Work> prepare(Workers& workers, std::span<const FfnJob> jobs, QuantizedRows& rows) {
  std::vector<Work> works;
  std::vector<int64_t> first_row;  // of each job in `rows`; -1: none
  int64_t row_count = 0, inner_blocks = 0;
  for (const FfnJob& job : jobs) {
    works.push_back({.job = job});
    const bool int8_input = int8_kernel(workers, job.gate) != nullptr || int8_kernel(workers, job.up) != nullptr;
    first_row.push_back(int8_input ? row_count : -1);
    if (int8_input) {
      rows.add(job.x, job.token_count);
      row_count += job.token_count;
    }
    if (int8_kernel(workers, job.down) != nullptr)
      inner_blocks += job.token_count * activation_row_blocks(job.down.cols);
  }
  if (row_count > 0) rows.quantize(workers, jobs[0].gate.cols);
  ActivationBlock* inner = activation_blocks(workers.inner_activations(), inner_blocks);
  for (size_t i = 0; i < works.size(); ++i) {
    if (first_row[i] >= 0) works[i].x = rows.blocks() + first_row[i];
    if (int8_kernel(workers, jobs[i].down) == nullptr) continue;
    works[i].inner = inner;
    inner += jobs[i].token_count * activation_row_blocks(jobs[i].down.cols);
  }
  return works;
}

}  // namespace

void run_ffn(Workers& workers, std::span<const FfnJob> jobs) {
  for (const FfnJob& job : jobs) {
    MORAINE_CHECK(job.gate.rows == job.up.rows && job.gate.cols == job.up.cols && job.down.cols == job.gate.rows &&
                  job.down.rows == job.gate.cols && job.gate.cols == jobs[0].gate.cols);
  }
  QuantizedRows rows;
  const std::vector<Work> works = prepare(workers, jobs, rows);
  constexpr int64_t kBlockGroups = kActivationBlock / kLanes;  // tasks make whole blocks of inner activations
  const std::vector<Task> first =
      divide(works, workers.threads(), kBlockGroups, [](const FfnJob& job) { return job.gate; });
  workers.parallel_for(std::ssize(first), [&](int64_t i, WorkerScratch& scratch) {
    gate_and_up(workers, scratch, first[static_cast<size_t>(i)]);
  });
  const std::vector<Task> second = divide(works, workers.threads(), 1, [](const FfnJob& job) { return job.down; });
  workers.parallel_for(std::ssize(second), [&](int64_t i, WorkerScratch& scratch) {
    down(workers, scratch, second[static_cast<size_t>(i)]);
  });
}

}  // namespace moraine::cpu

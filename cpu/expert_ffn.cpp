#include "cpu/expert_ffn.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "quant/error.h"

namespace moraine::cpu {
namespace {

/// Some row groups of a job's matrix.
struct Task {
  const FfnJob* job = nullptr;
  int64_t first_group = 0;
  int64_t group_count = 0;
};

/// The groups of `matrix(job)` of all jobs, divided evenly.
template <class MatrixOf>
std::vector<Task> divide(std::span<const FfnJob> jobs, int threads, MatrixOf matrix) {
  int64_t total = 0;
  for (const FfnJob& job : jobs) total += matrix(job).groups();
  const int64_t step = groups_per_task(total, threads);
  std::vector<Task> tasks;
  for (const FfnJob& job : jobs) {
    const int64_t groups = matrix(job).groups();
    for (int64_t g = 0; g < groups; g += step) tasks.push_back({&job, g, std::min(step, groups - g)});
  }
  return tasks;
}

/// inner[t] = silu(gate(x[t])) ⊙ up(x[t]) for the task's rows of gate and up.
void gate_and_up(const KernelTable& kernels, WorkerScratch& scratch, const Task& task) {
  const FfnJob& job = *task.job;
  const int64_t stride = task.group_count * kLanes;
  float* gate = scratch.acc.get(job.token_count * stride);       // [tokens, rows of the task]
  float* up = scratch.second_acc.get(job.token_count * stride);  // [tokens, rows of the task]
  multiply_groups(kernels, scratch, job.gate, task.first_group, task.group_count, job.x, job.token_count, gate, stride);
  multiply_groups(kernels, scratch, job.up, task.first_group, task.group_count, job.x, job.token_count, up, stride);
  const int64_t first = task.first_group * kLanes;
  const int64_t rows = std::min(stride, job.gate.rows - first);
  for (int64_t t = 0; t < job.token_count; ++t) {
    kernels.silu_multiply(gate + t * stride, up + t * stride, rows, job.inner + t * job.gate.rows + first);
  }
}

void down(const KernelTable& kernels, WorkerScratch& scratch, const Task& task) {
  const FfnJob& job = *task.job;
  const int64_t stride = task.group_count * kLanes;
  float* acc = scratch.acc.get(job.token_count * stride);  // [tokens, rows of the task]
  multiply_groups(kernels, scratch, job.down, task.first_group, task.group_count,
                  {.data = job.inner, .stride = job.down.cols}, job.token_count, acc, stride);
  const int64_t first = task.first_group * kLanes;
  const int64_t rows = std::min(stride, job.down.rows - first);
  for (int64_t t = 0; t < job.token_count; ++t) {
    float* out = job.out + (job.out_row == nullptr ? t : job.out_row[t]) * job.out_stride + first;
    const float weight = job.weight == nullptr ? 1.0f : job.weight[t];
    for (int64_t i = 0; i < rows; ++i) out[i] = weight * acc[t * stride + i];
  }
}

}  // namespace

void run_ffn(Workers& workers, std::span<const FfnJob> jobs) {
  for (const FfnJob& job : jobs) {
    MORAINE_CHECK(job.gate.rows == job.up.rows && job.gate.cols == job.up.cols && job.down.cols == job.gate.rows &&
                  job.down.rows == job.gate.cols);
  }
  const std::vector<Task> first = divide(jobs, workers.threads(), [](const FfnJob& job) { return job.gate; });
  workers.parallel_for(std::ssize(first), [&](int64_t i, WorkerScratch& scratch) {
    gate_and_up(workers.kernels(), scratch, first[static_cast<size_t>(i)]);
  });
  const std::vector<Task> second = divide(jobs, workers.threads(), [](const FfnJob& job) { return job.down; });
  workers.parallel_for(std::ssize(second), [&](int64_t i, WorkerScratch& scratch) {
    down(workers.kernels(), scratch, second[static_cast<size_t>(i)]);
  });
}

}  // namespace moraine::cpu

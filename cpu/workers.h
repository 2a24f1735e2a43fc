#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/thread_pool.h"
#include "quant/aligned_buffer.h"

namespace moraine::cpu {

/// f32 memory that grows to the largest size asked for, aligned for every vector load. Growing loses the content.
class FloatBuffer {
 public:
  /// At least `count` floats.
  float* get(int64_t count) {
    const auto bytes = static_cast<uint64_t>(count) * sizeof(float);
    if (bytes > buffer_.size()) {
      buffer_ = {};
      buffer_ = quant::AlignedBuffer(bytes);
    }
    return reinterpret_cast<float*>(buffer_.data());
  }

 private:
  quant::AlignedBuffer buffer_;
};

/// One worker's memory for a task; nothing in it outlives the task.
struct WorkerScratch {
  FloatBuffer weights;                // [groups, columns, 16] decoded weights, or kInt8PanelGroups panels
  FloatBuffer x_tile;                 // [tokens, columns] the activations being multiplied
  FloatBuffer acc;                    // [tokens, rows] first result of a task
  FloatBuffer second_acc;             // [tokens, rows] second result of a task
  FloatBuffer queries;                // attention: [rows, key width]
  FloatBuffer keys;                   // attention: [page/16, key width, 16]
  FloatBuffer scores;                 // attention: [rows, page]
  FloatBuffer mixed;                  // attention: [rows, value width] weighted sums of values
  FloatBuffer values;                 // attention in bf16: a Bf16Panel of values
  FloatBuffer probabilities;          // attention in bf16: [rows, block]
  FloatBuffer projection;             // attention in bf16: a head's rows of kv_b_proj as a Bf16Panel
  FloatBuffer softmax_rows;           // attention in bf16: per row what the softmax keeps
  std::vector<SoftmaxState> softmax;  // [rows]
  std::vector<int64_t> positions;     // [rows]
};

/// What every part of the CPU backend computes with: kernels, threads, one scratch per thread.
class Workers {
 public:
  /// `threads` and `cpus` as in ThreadPool. `precise`: matrices in block formats are multiplied with f32 activations,
  /// too.
  Workers(const KernelTable& kernels, int threads, bool precise = false, std::vector<int> cpus = {})
      : kernels_(kernels),
        pool_(threads, std::move(cpus)),
        precise_(precise),
        scratch_(static_cast<size_t>(pool_.threads())) {}

  const KernelTable& kernels() const { return kernels_; }
  int threads() const { return pool_.threads(); }
  bool precise() const { return precise_; }

  /// Memory of int8 activations that all threads read while a matrix is multiplied: of its input, and of what a
  /// feed-forward network has between its matrices.
  FloatBuffer& input_activations() { return input_activations_; }
  FloatBuffer& inner_activations() { return inner_activations_; }

  /// fn(task, scratch) for task = 0 … n_tasks − 1, see ThreadPool::parallel_for.
  void parallel_for(int64_t n_tasks, const std::function<void(int64_t task, WorkerScratch& scratch)>& fn) {
    pool_.parallel_for(n_tasks, [&](int64_t task, int worker) {
      const KernelScope scope(kernels_);
      fn(task, scratch_[static_cast<size_t>(worker)]);
    });
  }

 private:
  const KernelTable& kernels_;
  ThreadPool pool_;
  bool precise_;
  std::vector<WorkerScratch> scratch_;
  FloatBuffer input_activations_;  // Int8Rows
  FloatBuffer inner_activations_;  // Int8Rows
};

}  // namespace moraine::cpu

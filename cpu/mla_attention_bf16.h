#pragma once

#include "cpu/mla_attention.h"

namespace moraine::cpu {

/// Some heads of some rows of a slice: what one thread computes at a time.
struct MlaTask {
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
GroupRange covering_groups(int64_t first_row, int64_t row_count);

/// The kernel that brings queries into latent space with a kv_b_proj of `type`; null if there is none.
AbsorbKernel absorb_kernel(const KernelTable& kernels, quant::DType type);

/// What a task works on.
struct MlaInputs {
  const MlaShape& shape;
  const quant::PackedView& kv_b_proj;
  int64_t layer = 0;
  const float* q = nullptr;  // [rows, heads, nope | rotated rope]
  float* out = nullptr;      // [rows, heads, v]

  const float* query(const MlaTask& task, int64_t t, int64_t head) const {
    return q + ((task.first_row + t) * shape.num_attention_heads + head) * shape.qk_head_dim();
  }
  float* output(const MlaTask& task, int64_t t, int64_t head) const {
    return out + ((task.first_row + t) * shape.num_attention_heads + head) * shape.v_head_dim;
  }
};

/// A task over a bf16 cache: bf16 products summed in f32, queries brought into latent space and values out of it with
/// integer products. kv_b_proj is in a format that absorb_kernel() takes, and the workers are not precise.
void mla_task_bf16(const Workers& workers, WorkerScratch& scratch, const MlaInputs& inputs, const MlaTask& task);

}  // namespace moraine::cpu

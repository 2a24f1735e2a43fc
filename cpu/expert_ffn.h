#pragma once

#include <cstdint>
#include <span>

#include "cpu/matmul.h"
#include "cpu/workers.h"
#include "quant/packed_matrix.h"

namespace moraine::cpu {

/// One SwiGLU feed-forward network on some rows: out[out_row[t]] = weight[t] · down( silu(gate(x[t])) ⊙ up(x[t]) ).
struct FfnJob {
  quant::PackedView gate, up;  // [intermediate, hidden]
  quant::PackedView down;      // [hidden, intermediate]
  RowView x;                   // [tokens, hidden]
  int64_t token_count = 0;
  float* inner = nullptr;  // [tokens, intermediate], overwritten
  float* out = nullptr;    // rows of hidden values, out_stride apart
  int64_t out_stride = 0;
  const int64_t* out_row = nullptr;  // [tokens]; null: row t
  const float* weight = nullptr;     // [tokens]; null: 1
};

/// All jobs together, in two parallel loops: gate and up with SwiGLU, then down. Matrices that int8_format() has
/// kernels for take int8 activations, quantized before each loop. A row's result is the same bits whatever else is
/// computed with it. All jobs have the same hidden width. No two rows may go
/// to the same place.
void run_ffn(Workers& workers, std::span<const FfnJob> jobs);

}  // namespace moraine::cpu
